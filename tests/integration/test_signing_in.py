"""Signing in through the whole mesh: scanners, other sites, invalid bodies, operators."""

import time
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx
import pytest

from tests.integration.researcher import Researcher

SCANNER = {"user-agent": "MailScanner/7.1", "accept": "text/html"}


@pytest.fixture
def person(live: Any) -> Iterator[Researcher]:
    """A user who has signed up but not signed in."""
    with Researcher(live, f"new.{uuid.uuid4().hex[:8]}@example.org") as somebody:
        somebody.ask_for_link()
        yield somebody


def parts(link: str) -> dict[str, str]:
    query = parse_qs(urlsplit(link).query)
    return {"userId": query["userId"][0], "secret": query["secret"][0]}


def test_scanners(person: Researcher) -> None:
    """
    After a mail scanner has opened the link ten times, and once with HEAD, the user signs in with
    it.
    """
    link = person.mailed_link()
    for method in ("GET",) * 10 + ("HEAD",):
        looked = httpx.request(method, link, headers=SCANNER, trust_env=False)
        assert 200 == looked.status_code
        assert "set-cookie" not in looked.headers

    person.data("POST", "/api/v1/auth/login", json=parts(link))

    assert person.email == person.data("GET", "/api/v1/me")["email"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
    ],
    ids=["another site", "a sister site", "another origin", "no origin", "neither header"],
)
def test_log_in_from_elsewhere(person: Researcher, headers: dict[str, str]) -> None:
    """A log-in that does not come from our pages is rejected and leaves the link valid."""
    link = person.mailed_link()
    for path, body in (
        ("/api/v1/auth/login", {"json": parts(link)}),
        ("/login", {"data": parts(link)}),
    ):
        url = urljoin(person.app, path)
        answer = httpx.post(url, headers=headers, trust_env=False, **body)  # type: ignore[arg-type]
        assert (403, "csrf_failed") == (answer.status_code, answer.json()["error"]["code"])
        assert "set-cookie" not in answer.headers

    person.data("POST", "/api/v1/auth/login", json=parts(link))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[" * 200_000, "payload_too_large"),
        (b"[" * 200_000 + b"]" * 200_000, "payload_too_large"),
        (b"[" * 30_000 + b"]" * 30_000, "invalid_json"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "invalid_json"),
        (b'{"userId": "' + b"a" * 4_000_000 + b'"}', "payload_too_large"),
        (b'{"userId": ' + b"1" * 5_000 + b', "secret": "bb"}', "invalid_json"),
        (b'{"userId": 7, "secret": "bb"}', "magicurl_login_validation_error"),
        (b'{"userId": NaN, "secret": "bb"}', "invalid_json"),
        (b'{"userId": "aa", "userId": "aa", "secret": "bb"}', "invalid_json"),
        (b'{"userId": "\\ud800", "secret": "bb"}', "invalid_json"),
        (b"\xff\xfe{}", "invalid_json"),
        (b"", "invalid_json"),
    ],
    ids=[
        *("200,000 brackets", "200,000 nested", "30,000 nested", "10,000 objects", "4 MB"),
        *("5,000 digits", "a number", "NaN", "a key twice", "lone surrogate", "no UTF-8"),
        "nothing",
    ],
)
def test_bad_bodies(person: Researcher, body: bytes, code: str) -> None:
    """An invalid body is rejected with its code and never with 500; the link stays valid."""
    answer = person.send(
        "POST",
        "/api/v1/auth/login",
        content=body,
        headers={"content-type": "application/json"},
    )
    status = 413 if code == "payload_too_large" else 400
    assert (status, code) == (answer.status_code, answer.json()["error"]["code"])
    person.data("POST", "/api/v1/auth/login", json=parts(person.mailed_link()))


def test_operator(live: Any) -> None:
    """
    The operator of the local mesh can open the console with their sign-in, once per link, which its
    graph shows as a declared edge; a researcher cannot.
    """
    with Researcher(live, "nobody@example.org") as researcher:
        researcher.sign_in()
        refused = researcher.send("POST", "/api/v1/auth/console", json={})
        assert (403, "permission_denied") == (
            refused.status_code,
            refused.json()["error"]["code"],
        )
    with Researcher(live, "operator@example.org") as operator:
        operator.sign_in()
        url = operator.data("POST", "/api/v1/auth/console", json={})["url"]
        me = operator.data("GET", "/api/v1/me")["id"]
    assert url.startswith(f"{live['urls']['console']}/open?code=")

    with httpx.Client(trust_env=False) as browser:
        assert 401 == browser.get(f"{live['urls']['console']}/api/mesh").status_code
        opened = browser.get(url)
        assert 200 == opened.status_code
        cookie = opened.headers["set-cookie"].partition(";")[0]
        inside = browser.get(f"{live['urls']['console']}/api/mesh", headers={"cookie": cookie})
        assert 200 == inside.status_code
        assert f".{me}." in cookie
        assert 401 == browser.get(url).status_code
        assert _edge(browser, live["urls"]["console"], cookie)["declared"]


def _edge(browser: httpx.Client, console: str, cookie: str) -> dict[str, Any]:
    """Wait until the console has observed Auth's request for a link; return that edge."""
    deadline = time.monotonic() + 30
    while True:
        items = browser.get(f"{console}/api/graph", headers={"cookie": cookie}).json()["items"]
        found = [e for e in items if ("auth", "console") == (e["from"], e["to"]) and e["observed"]]
        if found:
            edge: dict[str, Any] = found[0]
            return edge
        assert time.monotonic() < deadline, items
        time.sleep(0.2)
