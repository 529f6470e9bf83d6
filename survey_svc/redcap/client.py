"""REDCap's HTTP API: connection pool, deadlines, retries and a circuit breaker.

The token is only in the body, never in a URL or a log. Filter values are not logged either, nor
REDCap's error messages, which repeat them.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import httpx
import structlog
from prometheus_client import Histogram
from pydantic import SecretStr

from mesh.chassis.errors import DeadlineExceededError, MeshError, UnavailableError, UpstreamError
from mesh.chassis.telemetry import LATENCY_BUCKETS, exemplar, http_client, names
from survey_svc import deadline
from survey_svc.errors import OperationFailedError, RefusedError
from survey_svc.redcap import responses
from survey_svc.redcap.breaker import FILES_OPEN, Breaker

log = structlog.get_logger("redcap")
S = TypeVar("S")
T = TypeVar("T")
Params = Mapping[str, str | Sequence[str]]
"""Parameters of one operation; sequences become ``name[0]``, ``name[1]`` and so on."""

CONNECT_SECONDS = 2.0
CONNECTIONS = 32
BUDGET_SECONDS = 10.0
"""Timeout of an operation outside a call."""
ATTEMPTS = 3
MAX_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 1024 * 1024
_NOT_RETRIABLE = {501, 505}
"""Server errors that say what the server cannot do."""
_BUSY = {408, 425, 429}
FILE_TAIL_BYTES = 1024
"""How much of the end of a file is searched for its end mark."""

SECONDS = Histogram(
    names.REDCAP_DURATION,
    "Duration of each attempt to call REDCap.",
    ["content", "outcome"],
    buckets=LATENCY_BUCKETS,
)


class RedcapApi:
    """REDCap's API for one token.

    Args:
        url: The API's URL with a trailing slash.
        token: The project's API token.
        connections: Maximum number of connections.
        max_bytes: Maximum size of a response.
        breaker: Opens after consecutive failures; default: a breaker of its own. Files have
            another one, because the error page of one file says little about other operations.
        transport: Replaces the connection pool in tests.
    """

    def __init__(
        self,
        url: str,
        token: SecretStr,
        *,
        connections: int = CONNECTIONS,
        max_bytes: int = MAX_BYTES,
        breaker: Breaker | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url
        self._token = token
        self._max_bytes = max_bytes
        self._breaker = breaker or Breaker()
        self._file_breaker = Breaker(gauge=FILES_OPEN)
        self._client = http_client(
            "redcap",
            segments=httpx.URL(url).path.split("/"),
            transport=transport,
            limits=httpx.Limits(
                max_connections=connections, max_keepalive_connections=max(1, connections // 2)
            ),
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            headers={"user-agent": "amarre-survey"},
        )
        self.answered_at = float("-inf")
        """Time of the last valid response from REDCap; monotonic seconds."""

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def text(
        self, params: Params, *, retry: bool = True, check: Callable[[str], str] | None = None
    ) -> str:
        """Return the body of one operation.

        Args:
            params: The operation, without the token.
            retry: Whether it may be retried; only for exports and upserts.
            check: Returns the body, or raises an `UpstreamError` if it is invalid.

        Raises:
            UnavailableError: REDCap is unavailable.
            DeadlineExceededError: REDCap did not respond in the remaining time.
            RefusedError: REDCap rejected the operation.
            UpstreamError: REDCap returned an invalid response.
        """

        async def once() -> str:
            async with self._answer(params) as response:
                return (check or _unchanged)(responses.text(await self._read(response)))

        with self._breaker.call():
            return await self._with_retries(once, params, _unchanged, retry=retry)

    async def json(self, params: Params, check: Callable[[Any], T], *, retry: bool = True) -> T:
        """Return the result of *check* on the JSON of one operation.

        *check* may raise an error of `responses.TRANSIENT` to have the operation retried; other
        errors are those of `text`.
        """

        async def once() -> Any:
            async with self._answer({"format": "json", **params}) as response:
                return responses.parse_json(await self._read(response))

        with self._breaker.call():
            return await self._with_retries(once, params, check, retry=retry)

    async def pieces(self, params: Params, *, start: bytes, end: bytes) -> AsyncGenerator[bytes]:
        """Stream the body of one export, checking that it starts with *start*.

        Raises:
            UpstreamError: It starts differently, or *end* is not near its end; other errors are
                those of `text`.
        """
        async with contextlib.AsyncExitStack() as stack:

            async def once() -> tuple[bytes, AsyncIterator[bytes]]:
                response = await stack.enter_async_context(self._answer(params))
                pieces = response.aiter_bytes(64 * 1024)
                first = await anext(pieces, b"")
                if not first:
                    raise responses.EmptyResponseError
                if not first.startswith(start):
                    raise responses.UnreadableResponseError(
                        "REDCap returned something other than the file."
                    )
                return first, pieces

            with self._file_breaker.call():
                first, rest = await self._with_retries(once, params, _unchanged, retry=True)
            tail = first[-FILE_TAIL_BYTES:]
            yield first
            try:
                async for piece in rest:
                    tail = (tail + piece)[-FILE_TAIL_BYTES:]
                    yield piece
            except httpx.HTTPError as exc:
                raise UnavailableError("REDCap closed the connection within a file.") from exc
            if end not in tail:
                # Without a length, the end of the connection looks like the end of the file.
                raise UpstreamError("REDCap returned only a part of the file.")

    async def _with_retries(
        self,
        once: Callable[[], Awaitable[S]],
        params: Params,
        check: Callable[[S], T],
        *,
        retry: bool,
    ) -> T:
        loop = asyncio.get_running_loop()
        limit = deadline.current(BUDGET_SECONDS)
        attempt = 1
        while True:
            # A caller that joins a shared call may extend its deadline between attempts.
            left = limit.remaining_seconds()
            final = not retry or attempt == ATTEMPTS
            try:
                # A hanging attempt leaves time for another one.
                return check(await self._timed(once, params, left if final else left * 0.6))
            except (_Transient, *responses.TRANSIENT) as error:
                fault = error.fault if isinstance(error, _Transient) else error
                pause = random.uniform(0.05, 0.15) * 2**attempt  # noqa: S311 - jitter
                if final or loop.time() + pause >= limit.ends_at:
                    if fault is error:
                        raise
                    raise fault from error.__cause__
                log.warning("redcap retried", attempt=attempt, fault=fault.reason)
            await asyncio.sleep(pause)
            attempt += 1

    async def _timed(self, once: Callable[[], Awaitable[T]], params: Params, seconds: float) -> T:
        started = time.perf_counter()
        outcome = "cancelled"
        try:
            async with asyncio.timeout(seconds):
                answer = await once()
            outcome = "ok"
        except TimeoutError as exc:
            outcome = "timeout"
            fault = DeadlineExceededError("REDCap did not respond in the remaining time.")
            raise _Transient(fault) from exc
        except httpx.HTTPError as exc:
            outcome = "away"
            raise _Transient(UnavailableError("REDCap is unreachable.")) from exc
        except RefusedError:
            outcome = "refused"
            raise
        except (_Transient, MeshError):
            outcome = "nonsense"
            raise
        finally:
            elapsed = time.perf_counter() - started
            SECONDS.labels(str(params.get("content", "")), outcome).observe(elapsed, exemplar())
        self.answered_at = time.monotonic()
        return answer

    async def _read(self, response: httpx.Response) -> bytes:
        return await _read(response, self._max_bytes)

    @contextlib.asynccontextmanager
    async def _answer(self, params: Params) -> AsyncIterator[httpx.Response]:
        body = {"token": self._token.get_secret_value(), "returnFormat": "json", **_flat(params)}
        async with self._client.stream("POST", self._url, data=body) as response:
            if response.status_code != httpx.codes.OK:
                raise await _fault(response)
            yield response


class _Transient(Exception):  # noqa: N818 - never leaves this module
    """An error after which the same call may be retried."""

    def __init__(self, fault: MeshError) -> None:
        super().__init__(fault.message)
        self.fault = fault


def _unchanged(value: T) -> T:
    return value


def _flat(params: Params) -> dict[str, str]:
    flat = {}
    for name, value in params.items():
        if isinstance(value, str):
            flat[name] = value
        else:
            flat |= {f"{name}[{at}]": item for at, item in enumerate(value)}
    return flat


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > max_bytes:
            raise OperationFailedError(f"REDCap's response is larger than {max_bytes // 1024} KiB.")
    return bytes(body)


async def _fault(response: httpx.Response) -> Exception:
    """Return the error for a status; of the body, only whether it is REDCap's own error is used."""
    status = response.status_code
    message = f"REDCap returned status {status}."
    if status == httpx.codes.NO_CONTENT:
        return responses.EmptyResponseError()
    if status == httpx.codes.INTERNAL_SERVER_ERROR:
        kind = OperationFailedError if await _is_own_error(response) else UpstreamError
        return _Transient(kind(message, status=str(status)))
    # Proxies and content delivery networks have statuses of their own, such as 520 to 527.
    if status in _BUSY or (500 < status < 600 and status not in _NOT_RETRIABLE):
        return _Transient(UnavailableError(message, status=str(status)))
    if status in {400, 401, 403, 406} and await _is_own_error(response):
        return RefusedError(
            f"REDCap rejected the operation with status {status}.", status=str(status)
        )
    return UpstreamError(message, status=str(status))


async def _is_own_error(response: httpx.Response) -> bool:
    """Return whether the body is an error of REDCap itself, which shows that REDCap is alive."""
    try:
        return responses.is_error(await _read(response, MAX_ERROR_BYTES))
    except OperationFailedError:
        return False
