"""Client of Appwrite's REST API: timeouts, retries of reads only, error mapping."""

from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import httpx
import structlog

from auth_svc.ports import Clock
from auth_svc.providers.appwrite_responses import body_of, parse
from mesh.chassis.errors import RateLimitedError, UnavailableError, UpstreamError

log = structlog.get_logger("appwrite")

RESPONSE_FORMAT = "1.9.0"
TIMEOUT = httpx.Timeout(10.0, connect=2.0)
LIMITS = httpx.Limits(max_connections=50, max_keepalive_connections=20)
SEGMENTS = frozenset(
    {"account", "current", "labels", "magic-url", "sessions", "status", "token", "tokens", "users"}
)
"""The segments of its paths that are not ids."""
_DIGITS = 12
"""The most digits of a Unix time."""
_AWAY = {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}


class AppwriteError(Exception):
    """Appwrite rejected the request; ``kind`` is its error type."""

    def __init__(self, status: int, kind: str) -> None:
        super().__init__(f"Appwrite returned {status} {kind}.")
        self.status = status
        self.kind = kind


@dataclass(frozen=True)
class AppwriteProject:
    """The project, and the API key of this service."""

    endpoint: str
    id: str
    key: str = field(repr=False)


class AppwriteClient:
    """Calls one project, as this service with its key or as a user with a session."""

    def __init__(self, http: httpx.AsyncClient, project: AppwriteProject, clock: Clock) -> None:
        # Appwrite also sets sessions as cookies; storing them would mix up users.
        http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))
        self._http = http
        self._project = project
        self._clock = clock

    async def as_service(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> dict[str, Any]:
        """Call with the API key; *headers* are in lower case, with underscores.

        Raises:
            AppwriteError: Appwrite rejected the request.
            UnavailableError, RateLimitedError, UpstreamError: Appwrite failed or is unavailable.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._call(method, path, body, {"x-appwrite-key": self._project.key, **named})

    async def as_user(self, path: str, session: str) -> dict[str, Any]:
        """Read as the user of *session*, without the key, since Appwrite rejects both together.

        Raises:
            AppwriteError, UnavailableError, RateLimitedError, UpstreamError: As above.
        """
        return await self._call("GET", path, None, {"x-appwrite-session": session})

    async def _call(
        self, method: str, path: str, body: object, headers: dict[str, str]
    ) -> dict[str, Any]:
        # Writes are never retried: after a lost response, a link may be consumed or a mail sent.
        attempts = 2 if method == "GET" else 1
        for left in reversed(range(attempts)):
            try:
                async with self._http.stream(
                    method,
                    f"{self._project.endpoint}{path}",
                    json=body,
                    headers={
                        "x-appwrite-project": self._project.id,
                        "x-appwrite-response-format": RESPONSE_FORMAT,
                        **headers,
                    },
                ) as answer:
                    content = await body_of(answer)
            except httpx.TransportError as exc:
                if left and isinstance(exc, httpx.ConnectError | httpx.RemoteProtocolError):
                    continue
                log.warning("appwrite unavailable", fault=type(exc).__name__)
                raise UnavailableError("The identity provider is unreachable.") from exc
            if not (left and answer.status_code in _AWAY):
                return self._read(answer, content)
        raise AssertionError("the last attempt returns or raises")

    def _read(self, answer: httpx.Response, content: bytes) -> dict[str, Any]:
        status = answer.status_code
        if status == HTTPStatus.NO_CONTENT:
            return {}
        found = parse(content)
        if answer.is_success and found is not None:
            return found
        kind = str(found.get("type", "")) if found else ""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.warning("appwrite failed", status=status, fault=kind)
            raise UnavailableError("The identity provider failed; try again later.")
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            raise RateLimitedError(
                "The identity provider has rate limited this service; try again later.",
                retry_after=self._until(answer.headers.get("x-ratelimit-reset", "")),
            )
        if kind:
            raise AppwriteError(status, kind)
        log.error("appwrite response not valid", status=status)
        raise UpstreamError("The identity provider returned an invalid response.")

    def _until(self, reset: str) -> timedelta:
        ends = int(reset) if reset.isascii() and reset.isdecimal() and len(reset) <= _DIGITS else 0
        return timedelta(seconds=min(max(ends - self._clock().timestamp(), 1), 3600))
