"""Request binding: bodies, queries and headers, and the response to invalid input."""

from typing import Any

import pytest

from mesh.chassis.errors import MeshError, RateLimitedError
from tests.gateway.conftest import World

JSON = {"content-type": "application/json"}
SIGN_UP = "/api/v1/auth/signup"
LOG_IN = "/api/v1/auth/login"
CREATE = "/api/v1/surveys/requests"


class TestBodies:
    @pytest.mark.parametrize(
        ("path", "body", "headers", "code"),
        [
            pytest.param(SIGN_UP, "{}", {}, "request_body_validation_error", id="no type"),
            pytest.param(
                SIGN_UP,
                "email=a",
                {"content-type": "application/x-www-form-urlencoded"},
                "request_body_validation_error",
                id="form",
            ),
            pytest.param(LOG_IN, "{}", {}, "invalid_content_type", id="login, no type"),
            pytest.param(
                LOG_IN, "{}", {"content-type": "text/json"}, "invalid_content_type", id="text"
            ),
            pytest.param(
                LOG_IN,
                "{}",
                {"content-type": "application/json; charset=utf-16"},
                "invalid_content_type",
                id="charset",
            ),
            pytest.param(
                LOG_IN,
                "{}",
                {"content-type": 'application/json; profile="x"; charset=latin-1'},
                "invalid_content_type",
                id="charset after another parameter",
            ),
            # What follows is read as JSON; parameters other than charset have no effect.
            *(
                pytest.param(LOG_IN, "{", {"content-type": kind}, "invalid_json", id=kind)
                for kind in (
                    "Application/JSON;",
                    'application/json; charset="UTF-8"',
                    "application/json;profile=x",
                    "application/json ; odata=verbose; charset=utf-8",
                )
            ),
            pytest.param(LOG_IN, "", JSON, "invalid_json", id="empty"),
            pytest.param(LOG_IN, "{", JSON, "invalid_json", id="cut off"),
            pytest.param(LOG_IN, "NaN", JSON, "invalid_json", id="NaN"),
            pytest.param(LOG_IN, '{"userId": -Infinity}', JSON, "invalid_json", id="infinity"),
            pytest.param(LOG_IN, '{"userId": 1e999}', JSON, "invalid_json", id="too large"),
            pytest.param(LOG_IN, "9" * 5000, JSON, "invalid_json", id="5,000 digits"),
            pytest.param(LOG_IN, "[" * 30_000, JSON, "invalid_json", id="nested"),
            pytest.param(LOG_IN, "[" * 30_000 + "]" * 30_000, JSON, "invalid_json", id="deep"),
            pytest.param(LOG_IN, '{"userId":"\\ud800"}', JSON, "invalid_json", id="surrogate"),
            pytest.param(LOG_IN, b"\xff\xfe{\x00}\x00", JSON, "invalid_json", id="UTF-16"),
            pytest.param(LOG_IN, '{"a":1,"a":1}', JSON, "invalid_json", id="duplicate"),
            pytest.param(LOG_IN, "[]", JSON, "magicurl_login_validation_error", id="array"),
            pytest.param(LOG_IN, "null", JSON, "magicurl_login_validation_error", id="null"),
            pytest.param(LOG_IN, "{}", JSON, "magicurl_login_validation_error", id="missing"),
            pytest.param(
                LOG_IN,
                '{"userId":"aa","secret":"xyz"}',
                JSON,
                "magicurl_login_validation_error",
                id="not hexadecimal",
            ),
            pytest.param(
                LOG_IN,
                '{"userId":12,"secret":"ab"}',
                JSON,
                "magicurl_login_validation_error",
                id="number for text",
            ),
            pytest.param(SIGN_UP, "{}", JSON, "request_body_validation_error", id="no e-mail"),
            pytest.param(SIGN_UP, "[]", JSON, "request_body_validation_error", id="no object"),
            pytest.param(
                SIGN_UP,
                '{"email":"a@example.org","admin":true}',
                JSON,
                "request_body_validation_error",
                id="unknown",
            ),
            pytest.param(
                SIGN_UP,
                '{"email":"a@example.org","clientAddress":"1.2.3.4"}',
                JSON,
                "request_body_validation_error",
                id="what a header fills",
            ),
            pytest.param(SIGN_UP, '{"email":null}', JSON, "invalid_email", id="null e-mail"),
            pytest.param(SIGN_UP, '{"email":["a"]}', JSON, "invalid_email", id="list e-mail"),
            pytest.param(SIGN_UP, '{"email":""}', JSON, "invalid_email", id="empty e-mail"),
            pytest.param(SIGN_UP, '{"email":"a..b@"}', JSON, "invalid_email", id="bad e-mail"),
            pytest.param(
                SIGN_UP,
                '{"email":"a@example.org","language":"xx"}',
                JSON,
                "invalid_request",
                id="language",
            ),
        ],
    )
    async def test_refused(
        self, world: World, path: str, body: Any, headers: dict[str, str], code: str
    ) -> None:
        """Invalid input is 400 with the code of the contract; no service is called."""
        answer = await world.http.post(path, content=body, headers=headers)
        assert (400, code) == (answer.status_code, answer.json()["error"]["code"])
        assert not world.auth.does.requests

    @pytest.mark.parametrize("value", ['"true"', "1", "{}"])
    async def test_boolean(self, world: World, value: str) -> None:
        """Only true and false are booleans."""
        world.sign_in()
        body = f'{{"consent":{value}}}'
        answer = await world.http.post(CREATE, content=body, headers=JSON)
        assert (400, "invalid_request") == (answer.status_code, answer.json()["error"]["code"])

    async def test_no_body(self, world: World) -> None:
        """An absent body is an empty object where no field is required."""
        world.sign_in()
        assert 200 == (await world.http.post("/api/v1/auth/logout")).status_code
        assert not world.auth.does.last("LogOut").everywhere

    async def test_too_large(self, world: World) -> None:
        """A body above 64 KiB is 413, with or without Content-Length."""
        told = await world.http.post(LOG_IN, content=b"x" * 65_537, headers=JSON)

        async def pieces() -> Any:
            for _ in range(70):
                yield b" " * 1024

        counted = await world.http.post(LOG_IN, content=pieces(), headers=JSON)
        for answer in (told, counted):
            assert (413, "payload_too_large") == (
                answer.status_code,
                answer.json()["error"]["code"],
            )

    async def test_names_of_fields(self, world: World) -> None:
        """A violated rule names the field by its JSON name."""
        answer = await world.http.post(LOG_IN, json={"userId": "xyz", "secret": "ab"})
        violations = answer.json()["error"]["details"]["violations"]
        assert ["userId"] == [violation["field"] for violation in violations]


class TestQueries:
    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ("", "invalid_parameters"),
            ("host=", "invalid_parameters"),
            ("host=a&port=80", "invalid_port"),
            ("host=a&port=x", "invalid_port"),
            ("host=a&port=99999999999", "invalid_port"),
            ("host=a&port=443.0", "invalid_port"),
            ("host=a&port=", "invalid_port"),
            ("host=a&timeoutMs=99", "invalid_parameters"),
            ("host=a&timeoutMs=1e3", "invalid_parameters"),
            ("host=a&timeoutMs=%2B500", "invalid_parameters"),
            ("host=a&host=b", "invalid_request"),
            ("host=a&timeoutMs=500&timeout_ms=500", "invalid_request"),
            ("host=a&other=1", "invalid_request"),
            ("host=%ff", "invalid_request"),
            ("&".join(f"p{n}=1" for n in range(100)), "invalid_request"),
        ],
    )
    async def test_refused(self, world: World, query: str, code: str) -> None:
        """A parameter that is unknown, repeated or not of its type is 400."""
        world.sign_in()
        answer = await world.http.get(f"/api/v1/health/online?{query}")
        assert (400, code) == (answer.status_code, answer.json()["error"]["code"])
        assert not world.health.does.requests

    @pytest.mark.parametrize("name", ["timeoutMs", "timeout_ms"])
    async def test_both_names(self, world: World, name: str) -> None:
        """A parameter may use its JSON name or its proto name."""
        world.sign_in()
        answer = await world.http.get("/api/v1/health/online", params={"host": "a", name: "500"})
        assert 200 == answer.status_code
        assert 500 == world.health.does.last("CheckHost").timeout_ms

    async def test_query_of_a_post(self, world: World) -> None:
        """A route with a body rejects query parameters."""
        answer = await world.http.post(f"{SIGN_UP}?email=a@example.org", json={})
        assert "invalid_request" == answer.json()["error"]["code"]


class TestHeaders:
    async def test_idempotency_key(self, world: World) -> None:
        """Fields bound to headers are read from them."""
        world.sign_in()
        await world.http.post(CREATE, json={"consent": True}, headers={"Idempotency-Key": "k1"})
        assert "k1" == world.survey.does.last("CreateRequest").idempotency_key

    async def test_given_twice(self, world: World) -> None:
        """Two Idempotency-Key headers are rejected."""
        world.sign_in()
        headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        answer = await world.http.post(CREATE, json={"consent": True}, headers=headers)
        assert "invalid_request" == answer.json()["error"]["code"]

    async def test_client_address(self, world: World) -> None:
        """The client address is the peer address, whatever headers the client sends."""
        headers = {
            "X-Amarre-Client-Address": "6.6.6.6",
            "X-Forwarded-For": "6.6.6.6",
            "X-Envoy-External-Address": "6.6.6.6",
            "User-Agent": "x" * 2000,
        }
        body = {"userId": "aa", "secret": "bb"}
        assert 200 == (await world.http.post(LOG_IN, json=body, headers=headers)).status_code
        assert "127.0.0.1" == world.auth.does.last("LogIn").client_address
        assert "x" * 512 == world.auth.does.last("LogIn").user_agent


class TestErrors:
    async def test_retry_after(self, world: World) -> None:
        """A rate-limited response has Retry-After."""
        from datetime import timedelta

        world.auth.does.failures["SignUp"] = RateLimitedError(
            "Too many.", retry_after=timedelta(seconds=61.2)
        )
        answer = await world.http.post(SIGN_UP, json={"email": "a@example.org"})
        assert (429, "62") == (answer.status_code, answer.headers["retry-after"])
        assert "rate_limited" == answer.json()["error"]["code"]

    async def test_offline_details(self, world: World) -> None:
        """An offline host is 503 with the probe in the details."""
        from amarre.health.v1 import health_pb2

        class OfflineError(MeshError):
            area, reason = "health", "OFFLINE"

        world.sign_in()
        probe = health_pb2.HostProbe(host="a.test", port=443, tcp=health_pb2.TcpProbe(error="no"))
        world.health.does.failures["CheckHost"] = OfflineError(
            "It is unavailable.", details=[probe]
        )
        answer = await world.http.get("/api/v1/health/online?host=a.test")
        assert (503, "offline") == (answer.status_code, answer.json()["error"]["code"])
        assert answer.json()["error"]["details"]["online"] is False
        assert "no" == answer.json()["error"]["details"]["tcp"]["error"]


@pytest.mark.parametrize("name", ["noticeVersion", "notice_version"])
async def test_null_is_absent(world: World, name: str) -> None:
    """A null field is absent (ProtoJSON)."""
    world.sign_in()
    for body in ({"consent": True, name: None}, {"consent": None}):
        answer = await world.http.post("/api/v1/surveys/requests", json=body)
        assert 200 == answer.status_code
        created = world.survey.does.last("CreateRequest")
        assert "" == created.notice_version
        assert created.consent is bool(body["consent"])


async def test_null_is_not_a_value(world: World) -> None:
    """A required field that is null is missing; an unknown field is unknown even when null."""
    for body in ({"email": None}, {"email": "ada@example.org", "other": None}):
        answer = await world.http.post("/api/v1/auth/signup", json=body)
        assert 400 == answer.status_code
    assert not world.auth.does.requests


@pytest.mark.parametrize("body", [{}, {"required": None}, {"required": "true"}, {"required": 0}])
async def test_unclear_second_factor(world: World, body: dict[str, Any]) -> None:
    """The second factor is only turned on or off by a request that says which."""
    world.sign_in()
    answer = await world.http.post("/api/v1/auth/second-factor", json=body)
    assert 400 == answer.status_code
    assert not world.auth.does.count("SetSecondFactor")
    answer = await world.http.post("/api/v1/auth/second-factor", json={"required": False})
    assert (200, {"required": False}) == (answer.status_code, answer.json()["data"])
