"""One POST to REDCap: pool, time, retries, and what it must not answer.

The token is in the body, never in a URL or a log; neither are filter values, nor REDCap's own
error messages, which repeat them.
"""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import httpx
import structlog
from prometheus_client import Histogram
from pydantic import SecretStr

from mesh.chassis import call
from mesh.chassis.errors import DeadlineExceededError, MeshError, UnavailableError, UpstreamError
from mesh.chassis.telemetry import LATENCY_BUCKETS, exemplar, observed
from survey_svc.errors import RefusedError
from survey_svc.redcap.breaker import Breaker

log = structlog.get_logger("redcap")
T = TypeVar("T")
Params = Mapping[str, str | Sequence[str]]
"""Parameters of one operation; sequences become ``name[0]``, ``name[1]`` and so on."""

CONNECT_SECONDS = 2.0
CONNECTIONS = 32
BUDGET_SECONDS = 10.0
"""How long an operation may take where no call says."""
MARGIN_SECONDS = 0.25
"""What is kept of a call's time to answer in."""
ATTEMPTS = 3
MOST_BYTES = 64 * 1024 * 1024
_AGAIN = {408, 429, 500, 502, 503, 504}
_AWAY = _AGAIN - {500}

SECONDS = Histogram(
    "amarre_redcap_duration_seconds",
    "How long REDCap took to answer, each attempt.",
    ["content", "outcome"],
    buckets=LATENCY_BUCKETS,
)


class RedcapApi:
    """REDCap's API for one token."""

    def __init__(
        self, url: str, token: SecretStr, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._url = url
        self._token = token
        self._breaker = Breaker()
        self._client = httpx.AsyncClient(
            transport=observed("redcap", transport or _pool()),
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            trust_env=False,
            headers={"user-agent": "amarre-survey"},
        )
        self.answered_at = float("-inf")
        """When REDCap last answered as it should; monotonic seconds."""

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def text(self, params: Params, *, retry: bool = True) -> str:
        """Return the body of one operation.

        Args:
            params: The operation, without the token.
            retry: Whether it may be sent again; only for exports and upserts.

        Raises:
            UnavailableError: REDCap is away.
            DeadlineExceededError: It did not answer in the time that is left.
            RefusedError: It has understood and said no.
            UpstreamError: It answered something else.
        """

        async def once() -> str:
            async with self._answer(params) as response:
                return _text(await _read(response))

        return await self._with_retries(once, params, retry=retry)

    async def json(self, params: Params, *, retry: bool = True) -> Any:
        """Return the JSON of one operation; raises as `text` does."""

        async def once() -> Any:
            async with self._answer({"format": "json", **params}) as response:
                return _json(await _read(response))

        return await self._with_retries(once, params, retry=retry)

    async def pieces(self, params: Params, *, start: bytes) -> AsyncGenerator[bytes]:
        """Yield the body of one export as it comes, once it is known to begin with *start*.

        Raises:
            UpstreamError: It begins otherwise; further as `text` does.
        """
        async with contextlib.AsyncExitStack() as stack:

            async def once() -> tuple[bytes, AsyncIterator[bytes]]:
                response = await stack.enter_async_context(self._answer(params))
                pieces = response.aiter_bytes(64 * 1024)
                first = await anext(pieces, b"")
                if not first.startswith(start):
                    raise UpstreamError("REDCap answered something that is not the file.")
                return first, pieces

            first, rest = await self._with_retries(once, params, retry=True)
            yield first
            try:
                async for piece in rest:
                    yield piece
            except httpx.HTTPError as exc:
                raise UnavailableError("REDCap broke off in the middle of a file.") from exc

    async def _with_retries(
        self, once: Callable[[], Awaitable[T]], params: Params, *, retry: bool
    ) -> T:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + _budget()
        attempt = 1
        while True:
            left = ends_at - loop.time()
            final = not retry or attempt == ATTEMPTS
            try:
                # An attempt that hangs leaves time for another one.
                return await self._timed(once, params, left if final else left * 0.6)
            except _Transient as transient:
                pause = random.uniform(0.05, 0.15) * 2**attempt  # noqa: S311 - jitter
                if final or loop.time() + pause >= ends_at:
                    raise transient.fault from transient.__cause__
                log.warning("redcap again", attempt=attempt, fault=transient.fault.reason)
            await asyncio.sleep(pause)
            attempt += 1

    async def _timed(self, once: Callable[[], Awaitable[T]], params: Params, seconds: float) -> T:
        self._breaker.admit()
        started = time.perf_counter()
        outcome = "cancelled"
        try:
            async with asyncio.timeout(seconds):
                answer = await once()
            outcome = "ok"
        except TimeoutError as exc:
            outcome = "timeout"
            fault = DeadlineExceededError("REDCap did not answer in the time that was left.")
            raise _Transient(fault) from exc
        except httpx.HTTPError as exc:
            outcome = "away"
            raise _Transient(UnavailableError("REDCap cannot be reached.")) from exc
        except RefusedError:
            outcome = "refused"
            raise
        except (_Transient, MeshError):
            outcome = "nonsense"
            raise
        finally:
            elapsed = time.perf_counter() - started
            SECONDS.labels(str(params.get("content", "")), outcome).observe(elapsed, exemplar())
            self._count(outcome)
        return answer

    def _count(self, outcome: str) -> None:
        if outcome in {"ok", "refused"}:
            self._breaker.succeeded()
        elif outcome != "cancelled":
            self._breaker.failed()
        if outcome == "ok":
            self.answered_at = time.monotonic()

    @contextlib.asynccontextmanager
    async def _answer(self, params: Params) -> AsyncIterator[httpx.Response]:
        body = {"token": self._token.get_secret_value(), "returnFormat": "json", **_flat(params)}
        async with self._client.stream("POST", self._url, data=body) as response:
            if response.status_code != httpx.codes.OK:
                raise await _fault(response)
            yield response


class _Transient(Exception):  # noqa: N818 - never leaves this module
    """A fault after which the same call may be sent again."""

    def __init__(self, fault: MeshError) -> None:
        super().__init__(fault.message)
        self.fault = fault


def _pool() -> httpx.AsyncBaseTransport:
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=16)
    return httpx.AsyncHTTPTransport(limits=limits, trust_env=False)


def _budget() -> float:
    left = call.remaining_seconds()
    return BUDGET_SECONDS if left is None else max(0.0, left - MARGIN_SECONDS)


def _flat(params: Params) -> dict[str, str]:
    flat = {}
    for name, value in params.items():
        if isinstance(value, str):
            flat[name] = value
        else:
            flat |= {f"{name}[{at}]": item for at, item in enumerate(value)}
    return flat


async def _read(response: httpx.Response) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > MOST_BYTES:
            raise UpstreamError("REDCap's answer is larger than 64 MiB.")
    return bytes(body)


def _json(body: bytes) -> Any:
    try:
        value = json.loads(body)
    except ValueError as exc:
        raise UpstreamError("REDCap answered something that is no JSON.") from exc
    if isinstance(value, dict) and "error" in value:
        raise UpstreamError("REDCap reported an error with status 200.")
    return value


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as exc:
        raise UpstreamError("REDCap answered something that is no text.") from exc


async def _fault(response: httpx.Response) -> Exception:
    """Say what a status means; of the body only that it is REDCap's own error counts."""
    status = response.status_code
    if status in _AWAY:
        return _Transient(
            UnavailableError(f"REDCap answered with status {status}.", status=str(status))
        )
    if status in _AGAIN:
        return _Transient(
            UpstreamError(f"REDCap answered with status {status}.", status=str(status))
        )
    try:
        envelope = json.loads(await _read(response))
    except ValueError:
        envelope = None
    if status in {400, 401, 403, 406} and isinstance(envelope, dict) and "error" in envelope:
        return RefusedError(f"REDCap refused with status {status}.", status=str(status))
    return UpstreamError(f"REDCap answered with status {status}.", status=str(status))
