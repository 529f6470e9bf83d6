"""The study's REDCap project: implements the port ``Project`` with REDCap's API."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from urllib.parse import urlsplit

from mesh.chassis.config import web_url
from mesh.chassis.errors import MeshError, UpstreamError
from survey_svc import deadline
from survey_svc.errors import InvalidUrlError
from survey_svc.redcap import responses
from survey_svc.redcap.bulkhead import Bulkhead
from survey_svc.redcap.client import RedcapApi
from survey_svc.redcap.filter_logic import SAFE, is_email, is_one_of
from survey_svc.requests.rules import Row
from survey_svc.study.dictionary import Dictionary, Field, parse_choices
from survey_svc.study.profile import Profile, complete

ALIVE_PATIENCE = 4.0
"""Timeout of the version call that serves as liveness check, in seconds."""
ALIVE_SECONDS = 10.0
"""How long REDCap counts as available after a valid response."""
MOST_USER_ID = 36
"""The maximum length of a user id in the contract."""
LOOKUPS_RUNNING = 4
"""Maximum concurrent address look-ups; also the size of their connection pool."""
LOOKUPS_WAITING = 16
"""Maximum waiting look-ups: 5 rounds of 4 fit into the 3 s deadline of FindContact."""
LOOKUP_MAX_BYTES = 256 * 1024
"""Maximum response size of a look-up: a few rows, never all addresses of a domain."""
_EXPORT = {"content": "record", "action": "export", "type": "flat"}


class RedcapProject:
    """Implements `survey_svc.ports.Project` for a profile."""

    def __init__(
        self,
        api: RedcapApi,
        profile: Profile,
        *,
        lookups: RedcapApi | None = None,
        time_zone: tzinfo = UTC,
    ) -> None:
        """Create the adapter.

        Args:
            api: For calls of signed-in users and of the service itself.
            profile: The study's profile.
            lookups: For address look-ups, which unauthenticated clients can cause; has its own
                connection pool and circuit breaker.
            time_zone: That of REDCap's clock.
        """
        self._time_zone = time_zone
        self._api = api
        self._lookups = lookups or api
        self._lookup_slots = Bulkhead(running=LOOKUPS_RUNNING, waiting=LOOKUPS_WAITING)
        self._profile = profile
        self._variables = profile.variables
        opinions = [opinion.instrument for opinion in profile.opinions]
        self._states = [complete(name) for name in (*profile.applicants, *opinions)]

    async def is_alive(self) -> bool:
        """Return whether REDCap responds; calls it at most every 10 s while it does."""
        if time.monotonic() - self._api.answered_at < ALIVE_SECONDS:
            return True
        # Before the health check times out, so that the call counts as timed out.
        deadline.share(deadline.Deadline(asyncio.get_running_loop().time() + ALIVE_PATIENCE))
        try:
            await self._api.text(
                {"content": "version", "format": "json"}, retry=False, check=_version
            )
        except MeshError:
            return False
        return True

    async def dictionary(self) -> Dictionary:
        metadata, instruments, names = [
            await self._api.json({"content": content, "action": "export"}, responses.rows)
            for content in ("metadata", "instrument", "exportFieldNames")
        ]
        try:
            fields = [_field(row) for row in metadata]
            columns = [column for field in fields for column in field.columns]
            return Dictionary(
                fields={field.name: field for field in fields},
                instruments=tuple(row["instrument_name"] for row in instruments),
                # REDCap omits file fields from the names, but exports them.
                columns=frozenset([*columns, *(row["export_field_name"] for row in names)]),
            )
        except KeyError as exc:
            raise UpstreamError(f"REDCap's dictionary has no {exc}.") from exc

    async def rows(self, users: Sequence[str]) -> list[Row]:
        if not users:
            return []
        logic = is_one_of(self._variables.user, users)
        params = {**_EXPORT, "fields": self._profile.columns, "filterLogic": logic}
        wanted = set(users)
        # A request without its states would look as if nothing had been filled in.
        rows = await self._rows(params, self._variables.user, *self._states)
        # Do not rely on REDCap having applied the filter.
        return [row for row in rows if row[self._variables.user] in wanted]

    async def rows_by_id(self, user: str, records: Sequence[str]) -> list[Row]:
        record, owner = self._variables.record, self._variables.user
        params = {**_EXPORT, "fields": self._profile.columns, "records": records}
        rows = await self._rows(params, owner, *self._states)
        return [row for row in rows if row[owner] == user and row[record] in records]

    async def records(self, user: str, since: datetime | None = None) -> list[str]:
        variables = self._variables
        logic = is_one_of(variables.user, [user])
        fields = [variables.record, variables.user]
        params = {**_EXPORT, "fields": fields, "filterLogic": logic}
        if since is not None:
            # REDCap filters by whole seconds of its own clock.
            local = since.astimezone(self._time_zone) - timedelta(seconds=1)
            params["dateRangeBegin"] = f"{local:%Y-%m-%d %H:%M:%S}"
        rows = await self._rows(params, variables.user)
        return [row[variables.record] for row in rows if row[variables.user] == user]

    async def answers(self, user: str, records: Sequence[str]) -> list[Row]:
        own = self._variables.record, self._variables.user
        params = {
            **_EXPORT,
            "rawOrLabel": "label",
            "exportCheckboxLabel": "true",
            "records": records,
            "fields": own,
            "forms": self._profile.export,
        }

        def check(value: object) -> list[Row]:
            found = responses.distinct(responses.rows(value, *own), self._variables.record)
            return responses.every_record(found, self._variables.record, records)

        rows = await self._api.json(params, check)
        # The record identifies the request, so that exports can be merged. It is last, where a
        # reader of columns by number does not notice it.
        record, owner = own
        return [
            {name: value for name, value in row.items() if name not in {record, owner}}
            | {record: row[record]}
            for row in rows
            if row[self._variables.user] == user and row[self._variables.record] in records
        ]

    async def save(self, row: Row) -> None:
        params = {
            "content": "record",
            "action": "import",
            "type": "flat",
            "overwriteBehavior": "normal",
            "forceAutoNumber": "false",
            "returnContent": "count",
            "data": _dump([row]),
        }
        if not await self._api.json(params, responses.is_one_stored):
            raise UpstreamError("REDCap did not report one stored record.")

    async def link(self, record: str, instrument: str) -> str:
        params = {"content": "surveyLink", "record": record, "instrument": instrument}
        text = (await self._api.text(params, check=_not_markup)).strip()
        if not is_link(text):
            raise InvalidUrlError
        return text

    async def links(self, instrument: str) -> Mapping[str, str]:
        params = {"content": "participantList", "action": "export", "instrument": instrument}
        rows = await self._api.json(params, responses.rows)
        found = {row.get("record", ""): row.get("survey_link", "") for row in rows}
        return {record: link for record, link in found.items() if record and is_link(link)}

    def pdf(self, record: str, instrument: str) -> AsyncGenerator[bytes]:
        params = {"content": "pdf", "record": record, "instrument": instrument}
        return self._api.pieces(params, start=b"%PDF-", end=b"%%EOF")

    async def find_user(self, email: str) -> str:
        variables = self._variables
        logic = is_email(variables.email, email)
        if not logic:
            return ""
        fields = [variables.email, variables.user, variables.created_at]
        params = {**_EXPORT, "fields": fields, "filterLogic": logic}
        async with self._lookup_slots.slot():
            rows = await self._lookups.json(params, partial(_needing, fields))
        found = [
            (row[variables.created_at], row[variables.user])
            for row in rows
            if row[variables.email].lower() == email.lower() and _is_user_id(row[variables.user])
        ]
        # If an address has several ids, use the oldest one.
        return min(found)[1] if found else ""

    async def _rows(self, params: Mapping[str, str | Sequence[str]], *columns: str) -> list[Row]:
        record = self._variables.record

        def check(value: object) -> list[Row]:
            return responses.distinct(responses.rows(value, record, *columns), record)

        return await self._api.json(params, check)


def is_link(text: str) -> bool:
    """Return whether *text* is an http or https URL that fits the contract."""
    if len(text) > 2048 or not text.isprintable():
        return False
    try:
        # A user name could look like the host.
        return "@" not in urlsplit(web_url(text)).netloc
    except ValueError:
        return False


def _is_user_id(value: str) -> bool:
    return len(value) <= MOST_USER_ID and SAFE.fullmatch(value) is not None


def _field(row: Row) -> Field:
    kind = row["field_type"]
    choices = parse_choices(kind, row.get("select_choices_or_calculations", ""))
    return Field(row["field_name"], row["form_name"], kind, choices, row.get("field_label", ""))


def _needing(columns: Sequence[str], value: object) -> list[Row]:
    return responses.rows(value, *columns)


def _dump(rows: list[Row]) -> str:
    return json.dumps(rows, ensure_ascii=False)


def _not_markup(text: str) -> str:
    """Return *text* if it is neither an error page nor an error object."""
    if text.lstrip().startswith(("<", "{")):
        raise responses.UnreadableResponseError(
            "REDCap returned something other than a survey link."
        )
    return text


def _version(text: str) -> str:
    """Return *text* if it is a version number, not an error page with status 200."""
    if not text.strip().strip('"')[:1].isdigit():
        raise UpstreamError("REDCap returned something other than its version.")
    return text
