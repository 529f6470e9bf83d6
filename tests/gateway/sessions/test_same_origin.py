"""Same-origin check of state-changing requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import GatewaySettings
from gateway.sessions.origin import Origin
from tests.gateway.conftest import ORIGIN, World

BODY = {"email": "ada@example.org"}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"sec-fetch-site": "same-origin"}, id="fetch metadata"),
        pytest.param({"origin": ORIGIN}, id="origin"),
        pytest.param(
            {"sec-fetch-site": "same-origin", "origin": "https://evil.test"},
            id="fetch metadata rules",
        ),
    ],
)
async def test_accepted(world: World, headers: dict[str, str]) -> None:
    """Sec-Fetch-Site: same-origin is accepted; without it, an Origin of ours is."""
    del world.http.headers["sec-fetch-site"]
    answer = await world.http.post("/api/v1/auth/signup", json=BODY, headers=headers)
    assert 200 == answer.status_code


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="neither"),
        pytest.param([("sec-fetch-site", "cross-site")], id="cross-site"),
        pytest.param([("sec-fetch-site", "same-site")], id="same site"),
        pytest.param([("sec-fetch-site", "none")], id="address bar"),
        pytest.param([("sec-fetch-site", "cross-site"), ("origin", ORIGIN)], id="contradiction"),
        pytest.param(
            [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], id="both"
        ),
        pytest.param([("origin", "null")], id="null"),
        pytest.param([("origin", "https://evil.test")], id="other origin"),
        pytest.param([("origin", f"{ORIGIN}.evil.test")], id="longer origin"),
        pytest.param([("origin", "http://localhost:3443")], id="other scheme"),
        pytest.param([("origin", ORIGIN), ("host", "evil.test")], id="other host"),
        pytest.param(
            [
                ("sec-fetch-site", "same-origin"),
                ("origin", "https://rebind.test:3443"),
                ("host", "rebind.test:3443"),
            ],
            id="rebound name",
        ),
        pytest.param([("sec-fetch-site", "same-origin"), ("host", "[")], id="malformed host"),
    ],
)
@pytest.mark.parametrize(
    "path",
    ["/api/v1/auth/signup", "/signup", "/api/v1/auth/login", "/login", "/api/v1/auth/logout"],
)
async def test_refused(world: World, path: str, headers: list[tuple[str, str]]) -> None:
    """Anything else is 403 before any other check."""
    del world.http.headers["sec-fetch-site"]
    answer = await world.http.post(path, content=b"not even JSON", headers=headers)
    assert (403, "csrf_failed") == (answer.status_code, answer.json()["error"]["code"])
    assert not world.auth.does.requests


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        pytest.param("https://localhost:3443", "LOCALHOST:3443", id="capitals in Host"),
        pytest.param("HTTPS://LocalHost:3443", "localhost:3443", id="capitals in Origin"),
        pytest.param("https://amarre.test", "amarre.test:443", id="default port in Host"),
        pytest.param("https://amarre.test:443", "amarre.test", id="default port in Origin"),
        pytest.param("https://[::1]:3443", "[::1]:3443", id="IPv6"),
    ],
)
async def test_same(world: World, origin: str, host: str) -> None:
    """Scheme and host are compared without case, ports by value (RFC 6454, sections 4 and 5)."""
    del world.http.headers["sec-fetch-site"]
    ours = ("https://localhost:3443", "https://amarre.test", "https://[::1]:3443")
    world.gateway.api.origins = frozenset(map(Origin.parse, ours))
    headers = {"origin": origin, "host": host}
    answer = await world.http.post("/api/v1/auth/signup", json=BODY, headers=headers)
    assert 200 == answer.status_code


@pytest.mark.parametrize(
    ("ours", "host", "status"),
    [
        pytest.param("https://amarre.test", "amarre.test", 200, id="site"),
        pytest.param("https://amarre.test", "AMARRE.test:443", 200, id="site with its port"),
        pytest.param("https://amarre.test", "amarre.test:8443", 403, id="other port"),
        pytest.param("https://amarre.test", "localhost", 403, id="loopback of a site"),
        pytest.param("http://localhost:3000", "127.0.0.2:4000", 200, id="loopback address"),
        pytest.param("http://localhost:3000", "[::1]:3000", 200, id="IPv6 loopback"),
        pytest.param("http://localhost:3000", "a.localhost", 200, id="name below localhost"),
        pytest.param("http://127.0.0.1:3000", "localhost.evil.test:3000", 403, id="longer name"),
        pytest.param("http://127.0.0.1:3000", "192.0.2.1:3000", 403, id="other address"),
    ],
)
async def test_host(world: World, ours: str, host: str, status: int) -> None:
    """
    Host must be that of an origin of ours, so that a name that its owner points at our address
    (DNS rebinding) is refused; where an origin is on loopback, any name of loopback is accepted.
    """
    world.gateway.api.origins = frozenset([Origin.parse(ours)])
    answer = await world.http.post("/api/v1/auth/signup", json=BODY, headers={"host": host})
    assert status == answer.status_code


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "",
        "https://",
        "https://a/",
        "https://u@a",
        "ftp://a",
        "https://a:0",
        "https://a:99999",
        "https://a b",
        "//a",
        "https://a?x",
        "https://a:b",
        "https://a, https://b",
    ],
)
def test_not_an_origin(text: str) -> None:
    """``null``, user information, paths and malformed hosts are not origins (RFC 6454)."""
    with pytest.raises(ValueError, match=r"not a|invalid port"):
        Origin.parse(text)


@given(st.text(max_size=40))
def test_any_origin(text: str) -> None:
    """Any text is either an origin that prints and parses again, or a ValueError."""
    for candidate in (text, f"https://{text}"):
        try:
            origin = Origin.parse(candidate)
        except ValueError:
            continue
        assert origin == Origin.parse(str(origin))


def test_setting() -> None:
    """A setting that is not a list of origins is rejected at startup."""
    with pytest.raises(ValueError, match="not an http or https origin"):
        GatewaySettings(gateway_origins="https://a.test/path")
    settings = GatewaySettings(gateway_origins="http://a.test, https://A.test:443/")
    assert {Origin("http", "a.test", 80), Origin("https", "a.test", 443)} == settings.origins
    assert "https://a.test" == settings.https_url
