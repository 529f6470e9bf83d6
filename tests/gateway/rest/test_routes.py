"""The REST API as a whole: every path of the contracts, with fake services."""

import pytest
from amarre.health.v1 import health_pb2
from amarre.survey.v1 import survey_pb2

from gateway.sessions.cookies import NAME
from mesh.chassis.errors import UnavailableError
from mesh.contract import policy
from tests.gateway.conftest import World


class TestAnswers:
    async def test_envelope(self, world: World) -> None:
        """A success has the data and a null error."""
        world.sign_in()
        answer = await world.http.get("/api/v1/me")
        assert 200 == answer.status_code
        assert {
            "data": {"id": "ada", "email": "ada@example.org", "labels": ["applicant"]},
            "error": None,
        } == answer.json()

    @pytest.mark.parametrize("path", ["/api/v1/surveys/list", "/api/v1/surveys/requests"])
    async def test_list_is_array(self, world: World, path: str) -> None:
        """The data of a list is the array itself, defaults printed, times RFC 3339."""
        world.sign_in()
        request = survey_pb2.Request(id="1", status=survey_pb2.REQUEST_STATUS_TO_COMPLETE)
        request.create_time.FromJsonString("2026-01-05T12:00:00Z")
        request.steps.add(instrument="form", kind=survey_pb2.STEP_KIND_FORM, url="https://x.test/")
        world.survey.listed = [request]
        assert [
            {
                "id": "1",
                "createdAt": "2026-01-05T12:00:00Z",
                "title": "",
                "status": "REQUEST_STATUS_TO_COMPLETE",
                "steps": [
                    {
                        "instrument": "form",
                        "kind": "STEP_KIND_FORM",
                        "state": "STEP_STATE_UNSPECIFIED",
                        "opinion": "OPINION_UNSPECIFIED",
                        "url": "https://x.test/",
                    }
                ],
                "fields": {},
            }
        ] == (await world.http.get(path)).json()["data"]

    async def test_status_field(self, world: World) -> None:
        """An unhealthy status is 503 with the data, not with an error."""
        world.health.status = health_pb2.HEALTH_STATUS_DEGRADED
        answer = await world.http.get("/api/v1/health/status")
        assert 503 == answer.status_code
        assert "HEALTH_STATUS_DEGRADED" == answer.json()["data"]["status"]
        assert answer.json()["error"] is None

    async def test_secrets_stay(self, world: World) -> None:
        """The session secret appears only in the cookie."""
        answer = await world.http.post("/api/v1/auth/login", json={"userId": "aa", "secret": "bb"})
        assert {"loggedIn", "sessionExpiresAt"} == set(answer.json()["data"])
        assert world.auth.next_secret not in answer.text

    @pytest.mark.parametrize(
        ("method", "path"),
        [(r.verb, r.path) for m in policy.load() if m.needs_session for r in m.routes],
    )
    async def test_session_needed(self, world: World, method: str, path: str) -> None:
        """Every route whose contract requires a session returns 401 without one."""
        answer = await world.http.request(method, path)
        assert 401 == answer.status_code
        assert "unauthenticated" == answer.json()["error"]["code"]

    async def test_head(self, world: World) -> None:
        """HEAD returns the headers of GET without the body."""
        world.sign_in()
        answer = await world.http.head("/api/v1/me")
        assert 200 == answer.status_code
        assert b"" == answer.content
        assert int(answer.headers["content-length"]) > 0


class TestRefusals:
    @pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/nothing", "/nothing", "/static/no"])
    async def test_unknown_path(self, world: World, path: str) -> None:
        """An unknown path is 404 in the envelope."""
        answer = await world.http.get(path)
        assert 404 == answer.status_code
        assert "not_found" == answer.json()["error"]["code"]

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("DELETE", "/api/v1/me", "GET, HEAD"),
            ("PUT", "/api/v1/surveys/requests", "GET, HEAD, POST"),
            ("GET", "/api/v1/auth/login", "POST"),
            ("OPTIONS", "/api/v1/auth/login", "POST"),
            ("POST", "/notice", "GET, HEAD"),
            ("POST", "/static/amarre.css", "GET, HEAD"),
        ],
    )
    async def test_wrong_method(self, world: World, method: str, path: str, allowed: str) -> None:
        """A wrong method is 405 and lists the allowed ones."""
        answer = await world.http.request(method, path, headers={"sec-fetch-site": "none"})
        assert 405 == answer.status_code
        assert "method_not_allowed" == answer.json()["error"]["code"]
        assert allowed == answer.headers["allow"]

    async def test_service_unavailable(self, world: World) -> None:
        """An unavailable service is 503 with Retry-After."""
        world.sign_in()
        world.survey.does.failures["ListRequests"] = UnavailableError("REDCap is unavailable.")
        answer = await world.http.get("/api/v1/surveys/list")
        assert 503 == answer.status_code
        assert "unavailable" == answer.json()["error"]["code"]
        assert "1" == answer.headers["retry-after"]

    async def test_auth_unavailable(self, world: World) -> None:
        """While Auth is unavailable, nobody appears signed out and the cookie stays."""
        world.sign_in()
        world.auth.does.failures["VerifySession"] = UnavailableError("The database is unavailable.")
        answer = await world.http.get("/api/v1/me")
        assert 503 == answer.status_code
        assert NAME not in answer.headers.get("set-cookie", "")

    async def test_unexpected(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """An unexpected exception is 500 in the envelope and does not reveal its cause."""

        async def broken(*_: object) -> None:
            raise RuntimeError("secret-cause")

        world.sign_in()
        monkeypatch.setattr(world.gateway.api.sessions, "verify", broken)
        answer = await world.http.get("/api/v1/me")
        assert 500 == answer.status_code
        assert "internal" == answer.json()["error"]["code"]
        assert "secret-cause" not in answer.text
        assert answer.headers["x-request-id"]


async def test_next_page(world: World) -> None:
    """The token of the next page is a response header, documented in OpenAPI, and works."""
    world.sign_in()
    world.survey.next_page_token = "page-2"
    for path in ("/api/v1/surveys/list", "/api/v1/surveys/requests"):
        answer = await world.http.get(path)
        assert "page-2" == answer.headers["x-next-page-token"]
        document = (await world.http.get("/api/openapi.json")).json()
        described = document["paths"][path]["get"]["responses"]["200"]["headers"]
        assert "string" == described["x-next-page-token"]["schema"]["type"]
    world.survey.next_page_token = ""
    answer = await world.http.get("/api/v1/surveys/list", params={"pageToken": "page-2"})
    assert "page-2" == world.survey.does.last("ListRequests").page_token
    assert "x-next-page-token" not in answer.headers


async def test_pages_show_every_page(world: World) -> None:
    """The requests page shows all pages of the list."""
    world.sign_in()
    world.survey.pages = {"": (["1"], "b"), "b": (["2"], "")}
    page = await world.http.get("/?tab=complete")
    assert "request-1" in page.text
    assert "request-2" in page.text
