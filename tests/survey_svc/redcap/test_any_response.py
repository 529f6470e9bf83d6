"""Whatever REDCap answers, a call raises an error of the contract or returns a valid value."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from mesh.chassis.errors import MeshError
from survey_svc.redcap.client import RedcapApi
from survey_svc.redcap.project import RedcapProject
from survey_svc.study.profile import Profile
from tests.survey_svc.redcap.conftest import GOOD, TOKEN, Redcap

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 1e308, 10**30, "", "x", "1", "r1", "ada", "x" * 5000, "\0"),
    *("\ud83d", "2026-01-01", "9999-99-99", "javascript:alert(1)", "http://redcap.test/s", "<b>"),
    *([], {}, [[]], [{}], {"a": {}}),
)
KEYS = (
    *GOOD,
    *("error", "count", "survey_link", "email", "participant_identifier", "record", "field_name"),
    *("form_name", "field_type", "select_choices_or_calculations", "instrument_name", ""),
)
STATUSES = (*(200,) * 12, 201, 204, 206, 301, 302, 400, 401, 403, 404, 413, 429, 500, 503, 599, 999)


def value(choose: random.Random, depth: int = 0) -> Any:
    kind = choose.random()
    if kind < 0.7 or depth > 3:
        return choose.choice(ODD)
    if kind < 0.85:
        return [value(choose, depth + 1) for _ in range(choose.randrange(4))]
    return {choose.choice(KEYS): value(choose, depth + 1) for _ in range(choose.randrange(4))}


def row(choose: random.Random) -> dict[str, Any]:
    changed: dict[str, Any] = dict(GOOD)
    for _ in range(choose.randrange(4)):
        key = choose.choice(KEYS)
        changed.pop(key, None)
        if choose.random() < 0.8:
            changed[key] = value(choose)
    return changed


def body(choose: random.Random) -> bytes:
    rows = [row(choose) for _ in range(choose.randrange(4))]
    whole = json.dumps(rows if choose.random() < 0.5 else value(choose)).encode()
    damaged = (
        *(whole[: choose.randrange(len(whole))], b"\xef\xbb\xbf" + whole, choose.randbytes(40)),
        *(b"[" * 200_000, whole.decode().encode("utf-16"), b"<html>" + whole, whole + b" x"),
        *(b'[{"record_id":"a","record_id":"b"}]', b'[{"record_id":NaN}]', b"%PDF-1.7\n"),
    )
    return choose.choice(damaged) if choose.random() < 0.25 else whole


def response(choose: random.Random) -> httpx.Response:
    headers = {
        "content-type": choose.choice(("text/html", "application/json; charset=utf-16", "x", "")),
        "retry-after": choose.choice(("", "-1", "abc", "9" * 11, "1.5")),
        "location": choose.choice(("/", "http://[", "file:///etc/passwd")),
    }
    return httpx.Response(choose.choice(STATUSES), content=body(choose), headers=headers)


async def _pdf(project: RedcapProject) -> bytes:
    return b"".join([piece async for piece in project.pdf("r1", "form")])


CALLS: dict[str, Callable[[RedcapProject], Awaitable[object]]] = {
    "is_alive": lambda p: p.is_alive(),
    "dictionary": lambda p: p.dictionary(),
    "rows": lambda p: p.rows(["ada"]),
    "rows_by_id": lambda p: p.rows_by_id("ada", ["r1"]),
    "records": lambda p: p.records("ada", datetime(2026, 1, 1, tzinfo=UTC)),
    "answers": lambda p: p.answers("ada", ["r1"]),
    "save": lambda p: p.save(GOOD),
    "link": lambda p: p.link("r1", "form"),
    "links": lambda p: p.links("form"),
    "pdf": _pdf,
    "find_user": lambda p: p.find_user("ada@example.org"),
}


@pytest.mark.parametrize("name", CALLS)
async def test_any_response(name: str, profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random JSON of REDCap's shape, damaged bodies, odd statuses and headers, from a seed."""
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda _: sleep(0))
    choose = random.Random(name)
    redcap = Redcap()
    for _ in range(150):
        redcap.answers = [response(choose) for _ in range(4)]
        api = RedcapApi(
            "http://redcap.test/api/", SecretStr(TOKEN), transport=httpx.MockTransport(redcap)
        )
        try:
            await CALLS[name](RedcapProject(api, profile))
        except MeshError:
            continue
        finally:
            await api.close()
