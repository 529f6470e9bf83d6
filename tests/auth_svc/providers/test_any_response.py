"""
Whatever Appwrite answers, Auth raises an error of the contract or returns a value of its type.

Seen before: `null` as the id of a user became the user "None"; a list instead of sessions, a time
without a zone, deeply nested JSON, a broken content coding or a rate limit that ends in the year
30,000 were internal errors; a user's sessions could not be ended while one of them was unreadable;
the export of users never ended.
"""

import copy
import gzip
import json
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from auth_svc.ports import User
from auth_svc.providers.appwrite import PAGE, AppwriteDirectory
from auth_svc.storage.database import Database
from mesh.chassis.errors import MeshError, RateLimitedError, UpstreamError
from mesh.chassis.testing import FakeClock
from tests.auth_svc.providers.test_appwrite import (
    USES,
    Answering,
    Use,
    local_database,
    over,
    refusal,
)

__all__ = ["local_database"]

SESSION = {
    "$id": "s1",
    "userId": "ab",
    "$createdAt": "2999-01-01T00:00:00.000+00:00",
    "expire": "2999-02-01T00:00:00.000+00:00",
    "clientName": "Firefox",
    "osName": "Linux",
    "secret": "c2VjcmV0",
}
USER = {"$id": "ab", "email": "ada@example.org", "labels": ["applicant"], "status": True}
WHOLE: dict[str, Any] = {
    **SESSION,
    **USER,
    "userId": "ab",
    "sessions": [SESSION, SESSION],
    "users": [USER],
    "total": 1,
}
"""A response that is valid for every call."""
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 10**30, "", "x" * 5000, "\0", "\ud83d", [], {}, [[]], [None]),
    *([{}], [5], {"a": {}}, "2026-01-01", "2026-01-01T00:00:00", "9999-12-31T23:59:59Z", "../x"),
    *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "soon", 1_800_000_000, "a b", "é", "_x"),
)


async def _all(directory: AppwriteDirectory) -> list[User]:
    return [user async for user in directory.users()]


ALL: dict[str, Use] = {**USES, "users": _all, "block": lambda d: d.block("ab", on=True)}


@pytest.mark.parametrize("field", WHOLE)
@pytest.mark.parametrize("use", ALL)
async def test_field(local_database: Database, clock: FakeClock, use: str, field: str) -> None:
    """Each field with each odd value, and missing, also within lists."""
    for odd in (*ODD, ...):
        whole = copy.deepcopy(WHOLE)
        for target in (whole, whole["sessions"][1], whole["users"][0]):
            if odd is ...:
                target.pop(field, None)
            elif field in target:
                target[field] = odd
        content = json.dumps(whole).encode()
        answering = Answering(httpx.Response(200, content=content))
        try:
            found = await ALL[use](over(answering, local_database, clock))
        except MeshError:
            continue
        assert found is None or "None" not in repr(found)


@pytest.mark.parametrize("seed", range(5))
async def test_any_bytes(local_database: Database, clock: FakeClock, seed: int) -> None:
    """Truncated, re-encoded, compressed and random bodies with any status and headers."""
    choose = random.Random(seed)
    whole = json.dumps(WHOLE).encode()
    bodies = (
        *(b"", b"null", b"[]", b'"x"', b"<html>", b"[" * 100_000, b'{"a":' * 100_000, b"NaN"),
        *(b'{"a": NaN}', whole.decode().encode("utf-16"), b"\xef\xbb\xbf" + whole, b"\xff" + whole),
        *(gzip.compress(whole), gzip.compress(whole)[:-9], choose.randbytes(99)),
        *(whole[: choose.randrange(len(whole))] for _ in range(5)),
    )
    for _ in range(150):
        status = choose.choice((*(200,) * 8, 201, 204, 206, 301, 400, 401, 404, 418, 429, 500, 599))
        headers = {
            "content-encoding": choose.choice(("", "", "gzip", "deflate", "br", "x")),
            "content-type": choose.choice(("application/json", "text/html", "x", "")),
            "x-ratelimit-reset": choose.choice(("", "-1", "9" * 11, "9" * 40, "soon", "1e9")),
            "location": "http://[",
        }
        answer = Raw(status, headers, choose.choice(bodies))
        try:
            await ALL[choose.choice([*ALL])](over(answer, local_database, clock))
        except MeshError:
            continue


class Raw(Answering):
    """A fake Appwrite whose response is decoded only while it is read, as from a network."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__()
        self._status, self._headers, self._body = status, headers, body

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """Return the response."""
        return httpx.Response(
            self._status, headers=self._headers, stream=httpx.ByteStream(self._body)
        )


async def test_too_large(local_database: Database, clock: FakeClock) -> None:
    """A response that does not end is not read to its end."""
    answer = Raw(200, {}, b" " * 5_000_000)
    with pytest.raises(UpstreamError, match="too large"):
        await over(answer, local_database, clock).sessions("ab")


async def test_rate_limit_far_away(local_database: Database, clock: FakeClock) -> None:
    """A rate limit is at most an hour, whatever the header says."""
    answer = refusal(429, "general_rate_limit_exceeded", **{"x-ratelimit-reset": "9" * 12})
    with pytest.raises(RateLimitedError) as limited:
        await over(Answering(answer), local_database, clock).sessions("ab")
    assert timedelta(hours=1) == limited.value.retry_after


async def test_one_bad_session(local_database: Database, clock: FakeClock) -> None:
    """A session that cannot be read hides no other, and all of them can be ended."""
    sessions = [SESSION | {"$id": "s1"}, SESSION | {"expire": None}, SESSION | {"$id": "s3"}, 5]
    directory = over(
        Answering(httpx.Response(200, json={"sessions": sessions})), local_database, clock
    )
    assert {"s1", "s3"} == {session.id for session in await directory.sessions("ab")}
    assert {"s1", "s3"} == set(await directory.end_sessions("ab"))


@pytest.mark.parametrize("listed", [{}, {"sessions": None}, {"sessions": {"a": 1}}])
async def test_no_list(local_database: Database, clock: FakeClock, listed: dict[str, Any]) -> None:
    """Sessions end even if Appwrite does not list them."""
    answering = Answering(httpx.Response(200, json=listed), httpx.Response(204))
    assert [] == await over(answering, local_database, clock).end_sessions("ab")
    assert "DELETE" == answering.asked[-1].method


async def test_same_page_again(local_database: Database, clock: FakeClock, tmp_path: Path) -> None:
    """A list of users that never ends is an error."""
    page = httpx.Response(200, json={"users": [USER | {"$id": f"u{n}"} for n in range(PAGE)]})
    with pytest.raises(UpstreamError, match="same page"):
        await _all(over(Answering(page), local_database, clock))
