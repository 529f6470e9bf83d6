"""Fuzzing: every response matches the OpenAPI document and none is 500."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import schemathesis
from amarre.mesh.v1.file_chunk_pb2 import FileChunk
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.rest.strict_json import NotJsonError, parse
from gateway.server.listeners import HEADER_BYTES, Listener
from gateway.sessions.cookies import NAME
from mesh.contract import openapi, policy
from tests.gateway.conftest import World

DOCUMENT = openapi.document(policy.load())
LATE = frozenset({503, 504})
"""Statuses of requests that a busy machine delayed beyond a deadline, 1 s for a session. A second
attempt shows whether the request itself is the cause."""
QUIET = settings(
    max_examples=15,
    deadline=None,
    database=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
LINKS = "/api/v1/surveys/links"
NAMES = st.sampled_from(["userId", "secret", "user_id", "clientAddress", "x", ""])
SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
JSON_VALUE = st.recursive(
    SCALAR, lambda inner: st.one_of(st.lists(inner), st.dictionaries(NAMES, inner)), max_leaves=10
)
JSON_TEXT = JSON_VALUE.map(lambda value: json.dumps(value).encode())
OPERATIONS = [
    (path, verb.upper())
    for path, verbs in DOCUMENT["paths"].items()
    for verb in verbs
    if not path.endswith("/events")  # They stay open.
]


@pytest.fixture
async def address(world: World) -> AsyncIterator[str]:
    """The URL of a gateway on a real port with a signed-in user and files to download."""
    world.sign_in()
    world.survey.chunks = [FileChunk(media_type="application/json", data=b"[]")]
    listener = Listener(
        world.gateway.app, "127.0.0.1:0", tls_dir=None, drain_timeout=world.settings.drain_timeout
    )
    await listener.start()
    yield f"http://127.0.0.1:{listener.port}"
    await listener.stop()


def can_be_wrong(path: str, verb: str) -> bool:
    """Return whether an operation has any input."""
    operation = DOCUMENT["paths"][path][verb.lower()]
    return "parameters" in operation or "requestBody" in operation


@pytest.mark.parametrize(
    ("path", "verb", "mode"),
    [
        (path, verb, mode)
        for path, verb in OPERATIONS
        for mode in GenerationMode
        if mode is GenerationMode.POSITIVE or can_be_wrong(path, verb)
    ],
    ids=lambda value: getattr(value, "value", value),
)
async def test_as_documented(
    world: World, address: str, path: str, verb: str, mode: GenerationMode
) -> None:
    """Valid and invalid requests get a documented status, media type and schema."""
    operation = schemathesis.openapi.from_dict(DOCUMENT)[path][verb]
    secret, user = next(iter(world.auth.sessions.items()))

    def asked(case: "schemathesis.Case[Any]") -> Any:
        world.auth.sessions[secret] = user  # Log-out would end it for the rest.
        return case.call(
            base_url=address, headers={"sec-fetch-site": "same-origin"}, cookies={NAME: secret}
        )

    @QUIET
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: "schemathesis.Case[Any]") -> None:
        # What is longer than a request line may be never reaches the application.
        assume(len(json.dumps(case.query or {}, default=str)) < HEADER_BYTES // 8)
        response = asked(case)
        if response.status_code in LATE:
            response = asked(case)
        assert response.status_code < 500
        assert {"data", "error"} == set(json.loads(response.content))
        case.validate_response(response, checks=CHECKS)

    await asyncio.to_thread(check)


async def test_any_body(world: World, address: str) -> None:
    """Any body is accepted or is a client error."""
    kinds = st.sampled_from(["application/json", "application/json;charset=utf-8", "text/x", ""])
    parts = st.one_of(st.binary(max_size=200), JSON_TEXT)

    @QUIET
    @given(body=parts, kind=kinds)
    def check(body: bytes, kind: str) -> None:
        answer = httpx.post(
            f"{address}/api/v1/auth/login",
            content=body,
            headers={"content-type": kind, "sec-fetch-site": "same-origin"},
            trust_env=False,
        )
        assert answer.status_code in {200, 400}
        assert {"data", "error"} == set(answer.json())

    await asyncio.to_thread(check)


async def test_any_query(world: World, address: str) -> None:
    """Any query is accepted or is a client error, on pages too."""
    alphabet = st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#")

    @QUIET
    @given(query=st.text(alphabet, max_size=200), path=st.sampled_from(["/", "/login", LINKS]))
    def check(query: str, path: str) -> None:
        headers = {"cookie": world.http.headers["cookie"]}
        answer = httpx.get(f"{address}{path}?{query}", headers=headers, trust_env=False)
        assert answer.status_code in {200, 400}

    await asyncio.to_thread(check)


@QUIET
@given(st.binary(max_size=500))
def test_any_bytes(data: bytes) -> None:
    """Any input is either parsed or rejected with NotJsonError."""
    with contextlib.suppress(NotJsonError):
        json.dumps(parse(data), allow_nan=False).encode()


@QUIET
@given(JSON_VALUE)
def test_any_value(value: object) -> None:
    """Valid JSON is read correctly."""
    assert value == parse(json.dumps(value).encode())


HEADERS = [
    *("cookie", "host", "origin", "accept", "accept-language", "accept-encoding", "user-agent"),
    *("last-event-id", "content-type", "content-encoding", "idempotency-key", "sec-fetch-site"),
    *("x-forwarded-for", "x-request-id", "traceparent", "sec-fetch-mode", "if-none-match", "range"),
]
HEADER_TEXT = st.one_of(
    st.binary(max_size=80).map(lambda data: bytes(c for c in data if c == 9 or 31 < c != 127)),
    st.text('gzip;q=01.*,-/"= nulhttps:[]%@\\', max_size=40).map(str.encode),
    st.sampled_from([NAME.encode() + b"=" + c * 20 for c in (b"a", b"\xe9", b'"', b";", b"=")]),
)
SERVED = [
    *(("GET", path) for path in ("/", "/api/v1/me", "/api/v1/surveys/list", "/static/live.js")),
    *(("POST", path) for path in ("/signup", "/api/v1/auth/login", "/requests", "/logout")),
]


@pytest.mark.parametrize("name", HEADERS)
async def test_any_header(world: World, name: str) -> None:
    """Any value of a header is accepted or is a client error, of pages, files and forms."""
    examples: list[tuple[tuple[str, str], bytes]] = []

    @settings(QUIET, max_examples=25)
    @given(request=st.sampled_from(SERVED), value=HEADER_TEXT)
    def collect(request: tuple[str, str], value: bytes) -> None:
        examples.append((request, value))

    collect()
    for (verb, path), value in examples:
        status = await answered(world, verb, path, {name.encode(): value})
        if status in LATE:
            status = await answered(world, verb, path, {name.encode(): value})
        assert status < 500, (verb, path, value)


async def answered(world: World, verb: str, path: str, headers: dict[bytes, bytes]) -> int:
    """Sign in; return the status of a request with *headers* and the body ``{}``."""
    world.sign_in()
    ordinary = {
        b"cookie": world.http.headers["cookie"].encode(),
        b"host": b"localhost",
        b"sec-fetch-site": b"same-origin",
    }
    sent: list[Any] = []
    received = iter([{"type": "http.request", "body": b"{}"}])

    async def receive() -> Any:
        return next(received, None) or await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": verb,
        "path": path,
        "scheme": "http",
        "query_string": b"",
        "client": ("127.0.0.1", 1),
        "headers": [*(ordinary | headers).items()],
    }
    await asyncio.wait_for(world.gateway.app(scope, receive, send), 20)
    return int(sent[0]["status"])
