"""One-time links to the console: with a console, without one, and while it is unavailable."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from auth_svc.console import HttpConsole, NoConsole
from mesh.chassis.errors import MeshError, NotFoundError, UnavailableError, UpstreamError

TOKEN = "a-token-of-the-console"
Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """The file with the console's token."""
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(f"{TOKEN}\n")
    return file


async def link(answer: Answer, token_file: Path) -> str:
    """Request a link from a console that responds with *answer*."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        return await HttpConsole(http, "http://console.test:3020/", token_file).link_for("ada.1")


async def test_link(token_file: Path) -> None:
    """The request to the console has the operator's name and the token."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"code": "once", "path": "/open?code=once"})

    assert "http://console.test:3020/open?code=once" == await link(answer, token_file)
    (request,) = asked
    assert ("POST", "/api/codes", "ada.1", f"Bearer {TOKEN}") == (
        request.method,
        request.url.path,
        request.url.params["who"],
        request.headers["authorization"],
    )


def unavailable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (unavailable, UnavailableError),
        (lambda _: httpx.Response(403, json={}), UpstreamError),
        (lambda _: httpx.Response(502, text="<html>"), UpstreamError),
        (lambda _: httpx.Response(200, text="<html>"), UpstreamError),
        (lambda _: httpx.Response(200, json=["path"]), UpstreamError),
        (lambda _: httpx.Response(200, json={"path": "//evil.example/"}), UpstreamError),
        (lambda _: httpx.Response(200, json={"path": 7}), UpstreamError),
    ],
    ids=["unavailable", "another token", "broken", "no JSON", "no object", "elsewhere", "a number"],
)
async def test_no_link(token_file: Path, answer: Answer, error: type[MeshError]) -> None:
    """An unavailable console and an invalid response give different errors and no link."""
    with pytest.raises(error) as ei:
        await link(answer, token_file)
    assert TOKEN not in str(ei.value)


async def test_no_token_yet(tmp_path: Path) -> None:
    """A console that has not created its token yet is unavailable."""
    with pytest.raises(UnavailableError):
        await link(lambda _: httpx.Response(500), tmp_path / "none")


async def test_no_console() -> None:
    """A mesh without a console says so."""
    with pytest.raises(NotFoundError):
        await NoConsole().link_for("ada.1")
