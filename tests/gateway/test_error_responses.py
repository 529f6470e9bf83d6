"""Who reads an error: people get a page, programs the envelope."""

import re
from typing import Any

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata
from starlette.responses import Response

from gateway.error_responses import ErrorResponses
from gateway.rest.envelope import describe
from mesh.chassis.errors import UnavailableError, UpstreamError, from_rpc_error
from mesh.render.envoy.errors import json_replies
from tests.gateway.conftest import World

BROWSER = {
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "accept-language": "en",
}
NAVIGATION = BROWSER | {"sec-fetch-mode": "navigate", "sec-fetch-site": "same-origin"}
PDF = "/api/v1/surveys/pdf?record_id=7"


@pytest.mark.parametrize(
    ("headers", "is_page"),
    [
        pytest.param(NAVIGATION, True, id="navigation"),
        pytest.param(BROWSER, True, id="without Fetch Metadata"),
        pytest.param({"accept": "text/html"}, True, id="HTML only"),
        pytest.param({"accept": "application/json;q=0.5, text/html"}, True, id="prefers HTML"),
        pytest.param(BROWSER | {"sec-fetch-mode": "cors"}, False, id="script"),
        pytest.param({"accept": "*/*"}, False, id="anything"),
        pytest.param({"accept": "application/json, text/html"}, False, id="both"),
        pytest.param({"accept": "application/json, text/html;q=0.9"}, False, id="prefers JSON"),
        pytest.param({}, False, id="nothing"),
    ],
)
@pytest.mark.parametrize("path", [PDF, "/api/v1/none", "/none"])
async def test_reader(world: World, path: str, headers: dict[str, str], is_page: bool) -> None:
    """
    A navigation gets a page, any other request JSON; without Fetch Metadata, Accept decides.

    Source: Fetch Metadata Request Headers, section 2.2; RFC 9110, section 12.5.1.
    """
    answer = await world.http.get(path, headers=headers)
    assert (401 if path == PDF else 404) == answer.status_code
    kind = "text/html; charset=utf-8" if is_page else "application/json"
    assert kind == answer.headers["content-type"]


async def test_link_after_the_session_ended(world: World) -> None:
    """A link to a file without a session leads to the sign-in form."""
    page = await world.http.get(PDF, headers=NAVIGATION)
    assert 401 == page.status_code
    assert "You are not signed in" in page.text
    assert '<form class="stack" method="post" action="/signup">' in page.text
    assert 'href="/?lang=fr"' in page.text


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (UpstreamError("HTML instead of JSON."), "returned an invalid response"),
        (UnavailableError("Unavailable."), "is not responding"),
    ],
)
async def test_file_during_an_outage(world: World, failure: UpstreamError, text: str) -> None:
    """A link to a file says in words why it fails, with the id of the request."""
    world.sign_in()
    world.survey.does.failures["GetPdf"] = failure
    page = await world.http.get(PDF, headers=NAVIGATION)
    assert failure.contract.http == page.status_code
    assert text in page.text
    assert f"Request: {page.headers['x-request-id']}" in page.text


async def test_links_to_files(world: World) -> None:
    """
    Links to files are navigations, so that people see their errors; JSON alone is a download,
    since a browser would show it.

    Source: HTML, section 4.6.5 (downloading resources).
    """
    world.sign_in()
    page = (await world.http.get("/?tab=data", headers=NAVIGATION)).text
    links = dict(re.findall(r'<a class="[^"]+" href="([^"]+)"([^>]*)>', page))
    downloads = [address for address, more in links.items() if "download" in more]
    assert ["/api/v1/surveys/data?format=json"] == downloads


async def test_too_large(world: World) -> None:
    """A form above the size limit is explained on a page."""
    page = await world.http.post("/signup", data={"email": "a" * 70_000}, headers=NAVIGATION)
    assert 413 == page.status_code
    assert "The content is too large" in page.text


async def test_unexpected(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error names the request in the log."""
    monkeypatch.setattr(world.gateway.api, "client_address", lambda request: 1 / 0)
    page = await world.http.post("/signup", data={"email": "a@example.org"}, headers=NAVIGATION)
    assert 500 == page.status_code
    assert "It has been logged" in page.text
    assert f"Request: {page.headers['x-request-id']}" in page.text


@pytest.mark.parametrize(("language", "text"), [("en", "is not responding"), ("fr", "ne répond")])
async def test_overload(world: World, language: str, text: str) -> None:
    """A navigation that is not admitted gets a page that is rendered once for each language."""
    with pytest.MonkeyPatch.context() as patch:
        rendered = []
        render = ErrorResponses.__call__

        def counted(*request: Any) -> Response:
            rendered.append(request)
            return render(*request)

        patch.setattr(ErrorResponses, "__call__", counted)
        limit = world.gateway.admission
        most = world.settings.gateway_requests_in_flight
        held = [limit.admit(0, always=True) for _ in range(most)]
        for _ in range(2):
            headers = NAVIGATION | {"accept-language": language}
            page = await world.http.get("/signup", headers=headers)
            assert (503, "1") == (page.status_code, page.headers["retry-after"])
            assert text in page.text
            assert page.headers["x-request-id"]
        refused = await world.http.get("/api/v1/me")
        assert "unavailable" == refused.json()["error"]["code"]
        assert 2 == len(rendered)
        for one in held:
            one.release()


async def test_request_of_no_one(world: World) -> None:
    """The request id on a page is that of the response."""
    page = await world.http.get("/none", headers=NAVIGATION)
    shown = re.search(r"Request: (\w+)", page.text)
    assert shown is not None
    assert page.headers["x-request-id"] == shown[1]


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    ],
    ids=lambda code: code.name,
)
def test_same_as_envoy(code: grpc.StatusCode) -> None:
    """
    An error without details has the same code and message from the gateway as from its Envoy.
    """
    error = from_rpc_error(AioRpcError(code, Metadata(), Metadata(), details="text of a library"))
    replies = {
        reply["filter"]["status_code_filter"]["comparison"]["value"]["default_value"]: reply
        for reply in json_replies(hsts=None)["mappers"]
        if "status_code_filter" in reply["filter"]
    }

    reply = replies[error.contract.http]["body_format_override"]["json_format"]

    assert {"data": None, "error": describe(error)} == reply
