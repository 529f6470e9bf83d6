"""Same-origin check of state-changing requests."""

import pytest

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
