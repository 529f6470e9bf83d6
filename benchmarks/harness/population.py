"""Users with sessions and requests, written into the databases of a running product."""

import json
import secrets
import uuid
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import insert

from auth_svc.hashing import digest
from auth_svc.storage import tables
from auth_svc.storage.database import Database
from benchmarks.harness.load import Side, cookie_of

SESSIONS = 3000
LENGTHS = (1, 10, 50)
"""Numbers of requests of the users whose lists are read."""
_COLD = range(150)
"""Users with ten requests, each read so rarely that nothing of them is cached."""
_IMPORTED_AT_ONCE = 500


@dataclass(frozen=True)
class Population:
    """The cookies of the users."""

    cookies: list[str]

    @property
    def cold(self) -> list[str]:
        """Users with ten requests who take turns."""
        return [self.cookies[number] for number in _COLD]

    @property
    def lists(self) -> dict[int, str]:
        """One user for each of `LENGTHS`."""
        return {count: self.cookies[_COLD.stop + at] for at, count in enumerate(LENGTHS)}

    @property
    def creators(self) -> list[str]:
        """Users without a request."""
        return self.cookies[_COLD.stop + len(LENGTHS) :]


async def populate(side: Side) -> Population:
    """Add users with one session each, some of them with requests."""
    people = Population(await _add_sessions(side))
    import_requests(side, dict.fromkeys(_COLD, 10))
    import_requests(side, {_COLD.stop + at: count for at, count in enumerate(LENGTHS)})
    return people


def import_requests(side: Side, counts: dict[int, int]) -> None:
    """Import as many finished requests for each user as *counts* says into the sandbox."""
    records = [one for user, count in counts.items() for one in _requests(user, count)]
    for start in range(0, len(records), _IMPORTED_AT_ONCE):
        some = json.dumps(records[start : start + _IMPORTED_AT_ONCE])
        _ask_redcap(side, action="import", data=some)


def count_records(side: Side) -> int:
    """Return the number of records in the sandbox."""
    return len(_ask_redcap(side, action="export", fields="record_id"))


def _ask_redcap(side: Side, **params: str) -> Any:
    token = (side.data / "secrets/redcap-token").read_text()
    body = {"content": "record", "format": "json", "token": token, **params}
    url = f"{side.urls['sandbox']}/api/"
    answer = httpx.post(url, data=body, trust_env=False, timeout=120)
    return answer.raise_for_status().json()


async def _add_sessions(side: Side) -> list[str]:
    now = datetime.now(UTC)
    found = [secrets.token_hex(32) for _ in range(SESSIONS)]
    url = f"sqlite+aiosqlite:///{side.data / 'state/auth.sqlite'}"
    async with aclosing(Database(url)) as database, database.transaction() as connection:
        await connection.execute(insert(tables.users), _users(now))
        await connection.execute(insert(tables.sessions), _sessions(found, now))
    return [cookie_of(secret) for secret in found]


def _user_id(number: int) -> str:
    return f"{number:020x}"


def _users(now: datetime) -> list[dict[str, object]]:
    return [
        {
            "id": _user_id(number),
            "email": f"bench{number}@example.org",
            "labels": ["applicant"],
            "created_at": now,
        }
        for number in range(SESSIONS)
    ]


def _sessions(found: Iterable[str], now: datetime) -> list[dict[str, object]]:
    return [
        {
            "id": str(uuid.uuid4()),
            "digest": digest(secret),
            "user_id": _user_id(number),
            "device": "",
            "created_at": now,
            "seen_at": now,
            "expires_at": now + timedelta(days=1),
        }
        for number, secret in enumerate(found)
    ]


def request_record(user: str, at: int, *, finished: bool = True) -> dict[str, str]:
    """Return the request number *at* of a user as a record of REDCap."""
    return {
        "record_id": f"{user}-{at}",
        "created_at": f"2026-03-01T10:{at // 60 % 60:02}:{at % 60:02}Z",
        "userid": user,
        "demandeur_statut": "1",
        "invite_nom": "Bo",
        "form_complete": "2",
        "validation_finale_complete": "2" if finished else "0",
    }


def _requests(number: int, count: int) -> Iterator[dict[str, str]]:
    """Yield *count* finished requests of a user as records of REDCap."""
    user = _user_id(number)
    for at in range(count):
        yield request_record(user, at)
