"""Creation of requests: exactly one despite crashes, repeats and concurrency.

A reservation per user is stored in a store that every replica shares. It contains the record id,
so that the import is an upsert that any replica can repeat. Uncertain outcomes are looked up in
REDCap; a failed look-up is an error and creates nothing.
"""

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter

from mesh.chassis import call
from mesh.chassis.errors import MeshError, UnavailableError
from mesh.chassis.telemetry import names
from survey_svc.errors import (
    ConsentRequiredError,
    IdempotencyKeyReusedError,
    OpenRequestExistsError,
    RefusedError,
)
from survey_svc.ports import Clock, Project, Reservation, Store
from survey_svc.requests.listing import Listing
from survey_svc.requests.rules import Row, is_open
from survey_svc.study.profile import Profile, complete

log = structlog.get_logger("creation")

CREATED = Counter(names.REQUESTS_CREATED, "Requests created in REDCap.")

LEASE = timedelta(seconds=12)
"""Longer than the deadline of CreateRequest: after it, the holder has responded."""
REMEMBERED = timedelta(hours=24)
"""How long an idempotency key returns the same response."""
FORGOTTEN = timedelta(hours=1)
"""Age after which a reservation that never reached REDCap is deleted."""
LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 1.0
"""How long a retry waits for the previous attempt before it resumes the creation."""
IMPORT_SHARE = 0.6
"""Share of the remaining time for the import; the rest is for verifying its outcome."""
UNVERIFIED = "1"
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""32 characters without ambiguous ones."""


@dataclass(frozen=True)
class Applicant:
    """User for whom a request is created."""

    id: str
    email: str = field(repr=False)


class Creation:
    """Creates requests and resolves interrupted creations."""

    def __init__(
        self, profile: Profile, project: Project, store: Store, listing: Listing, now: Clock
    ) -> None:
        self._profile = profile
        self._project = project
        self._store = store
        self._listing = listing
        self._now = now

    async def create(self, applicant: Applicant, *, consent: bool, notice: str, key: str) -> str:
        """Create a request.

        Args:
            applicant: The user.
            consent: Whether the user consents to the processing of personal data.
            notice: The version of the privacy notice that the user saw.
            key: The idempotency key; empty without one.

        Returns:
            The id of the request.

        Raises:
            ConsentRequiredError, OpenRequestExistsError, IdempotencyKeyReusedError: See them.
            UnavailableError, DeadlineExceededError, UpstreamError: REDCap failed. The request may
                have been created, or REDCap may still create it; a retry continues it.
        """
        if not consent:
            raise ConsentRequiredError
        attempt = self._attempt(applicant, notice, key)
        known = await self._known(attempt)
        if known is not None:
            return known
        while True:
            claim = await self._store.claim(attempt, self._now())
            held = claim.reservation
            if held.holder != attempt.holder:
                if not key or held.key != attempt.key:
                    raise OpenRequestExistsError
                return await self._join(applicant, attempt, held)
            async with self._let_go_on_failure(held):
                # An attempt with our key may have completed since our look-up: its reservation
                # was then free for us to claim, and its response is ours.
                known = await self._known_now(attempt, held)
                if known is not None:
                    return known
                if claim.before is None or not await self._reached(attempt, claim.before):
                    return await self._carry_out(applicant, held)
                # The previous creation had reached REDCap: complete it, then claim a reservation
                # again.
                await self._finish(claim.before)

    async def sweep(self) -> None:
        """Resolve the reservations whose lease has ended.

        Raises:
            MeshError: REDCap or the store is unavailable; the rest is resolved next time.
        """
        for reservation in await self._store.abandoned(self._now()):
            if await self._exists(reservation):
                await self._finish(reservation)
            elif self._now() - reservation.ends_at > FORGOTTEN:
                await self._store.drop(reservation)

    def _attempt(self, applicant: Applicant, notice: str, key: str) -> Reservation:
        now = self._now()
        return Reservation(
            user=applicant.id,
            record=new_record_id(now),
            created_at=now.replace(microsecond=now.microsecond // 1000 * 1000),
            holder=secrets.token_hex(16),
            ends_at=now + LEASE,
            notice=notice,
            consented_at=now,
            key=digest(key) if key else "",
            input=digest(notice),
        )

    async def _known(self, attempt: Reservation) -> str | None:
        if not attempt.key:
            return None
        answer = await self._store.answered(attempt.user, attempt.key, self._now())
        if answer is None:
            return None
        if answer.input != attempt.input:
            raise IdempotencyKeyReusedError
        return answer.record

    async def _known_now(self, attempt: Reservation, held: Reservation) -> str | None:
        """Look up the key's response again; if there is one, release the reservation."""
        try:
            known = await self._known(attempt)
        except IdempotencyKeyReusedError:
            await self._store.drop(held)
            raise
        if known is not None:
            await self._store.drop(held)
        return known

    async def _join(self, applicant: Applicant, attempt: Reservation, held: Reservation) -> str:
        """Wait for the attempt with the same key, then resume its creation."""
        if held.input != attempt.input:
            raise IdempotencyKeyReusedError
        ends_at = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while asyncio.get_running_loop().time() < ends_at:
            known = await self._known(attempt)
            if known is not None:
                return known
            await asyncio.sleep(LOOK_SECONDS)
        async with self._let_go_on_failure(held):
            return await self._carry_out(applicant, held)

    async def _reached(self, attempt: Reservation, before: Reservation) -> bool:
        """Return whether the creation that was taken over had reached REDCap."""
        if attempt.key and before.key == attempt.key:
            return False  # It is the same one: resuming it writes the same record.
        return await self._exists(before)

    async def _carry_out(self, applicant: Applicant, held: Reservation) -> str:
        try:
            rows = await self._listing.rows(held.user, now=True)
            if not self._is_in(rows, held):
                if any(is_open(self._profile, row) for row in rows):
                    await self._store.drop(held)
                    raise OpenRequestExistsError
                await self._import(applicant, held)
            await self._finish(held)
        except RefusedError:
            await self._store.drop(held)
            raise
        log.info("request created", record=held.record)
        return held.record

    @contextlib.asynccontextmanager
    async def _let_go_on_failure(self, held: Reservation) -> AsyncIterator[None]:
        """Release the reservation on any failure or cancellation.

        Otherwise the next attempt would report a conflict although REDCap was unavailable.
        """
        try:
            yield
        except BaseException:
            # No effect if the reservation was released before.
            await asyncio.shield(self._let_go(held))
            raise

    async def _import(self, applicant: Applicant, held: Reservation) -> None:
        """Store the record; if the outcome is uncertain, look it up."""
        left = call.remaining_seconds()
        share = None if left is None else left * IMPORT_SHARE
        try:
            async with asyncio.timeout(share):
                await self._project.save(self._row(applicant, held))
        except RefusedError:
            raise
        except (MeshError, TimeoutError) as fault:
            log.warning(
                "creation outcome uncertain", record=held.record, fault=type(fault).__name__
            )
            if not await self._exists(held):
                raise UnavailableError(
                    "It is not known whether REDCap stores the request; try again, which continues"
                    " the same request."
                ) from fault

    def _row(self, applicant: Applicant, held: Reservation) -> Row:
        names = self._profile.variables
        row = {
            names.record: held.record,
            names.created_at: _iso(held.created_at),
            names.user: applicant.id,
            names.email: applicant.email,
        }
        if self._profile.registration is not None:
            row[complete(self._profile.registration)] = UNVERIFIED
        if names.consent_time is not None and held.consented_at is not None:
            row[names.consent_time] = _iso(held.consented_at)
        if names.consent_notice is not None:
            row[names.consent_notice] = held.notice
        return row

    async def _exists(self, reservation: Reservation) -> bool:
        rows = await self._listing.rows(reservation.user, now=True)
        return self._is_in(rows, reservation)

    def _is_in(self, rows: Sequence[Row], reservation: Reservation) -> bool:
        name = self._profile.variables.record
        return any(row[name] == reservation.record for row in rows)

    async def _finish(self, reservation: Reservation) -> None:
        await self._store.finish(reservation, remember=REMEMBERED)
        CREATED.inc()
        await self._listing.forget(reservation.user)

    async def _let_go(self, reservation: Reservation) -> None:
        await self._listing.forget(reservation.user)
        await self._store.let_go(reservation, self._now())


def new_record_id(now: datetime) -> str:
    """Return a new record id: the date and 65 random bits."""
    return f"{now:%Y%m%d}-" + "".join(secrets.choice(_ALPHABET) for _ in range(13))


def digest(text: str) -> str:
    """Return the SHA-256 of *text*, for comparison."""
    return hashlib.sha256(text.encode()).hexdigest()


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
