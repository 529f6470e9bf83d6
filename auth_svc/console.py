"""Console access for signed-in operators; implements the port ``Console``."""

from pathlib import Path

import httpx
import structlog

from mesh.chassis.credentials import secret_files
from mesh.chassis.credentials.secret_files import SecretFileError
from mesh.chassis.errors import NotFoundError, UnavailableError, UpstreamError

log = structlog.get_logger("console")

PATH = "/api/codes"
TIMEOUT_SECONDS = 2.0


class NoConsole:
    """A mesh without a console."""

    async def link_for(self, operator: str) -> str:
        """Refuse."""
        raise NotFoundError("This mesh has no console; use its dashboards.")


class HttpConsole:
    """The console at *url*, which issues one-time codes to the bearer of its token.

    The token is read at each use: the console creates the file, and a new token needs no restart.
    """

    def __init__(self, http: httpx.AsyncClient, url: str, token_file: Path) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._token_file = token_file

    async def link_for(self, operator: str) -> str:
        """Return a one-time link to the console, valid for ten minutes."""
        try:
            answer = await self._http.post(
                f"{self._url}{PATH}",
                params={"who": operator},
                headers={"authorization": f"Bearer {self._token()}"},
                timeout=TIMEOUT_SECONDS,
            )
            answer.raise_for_status()
            path = answer.json()["path"]
            if not path.startswith("/open?"):
                raise ValueError("not the console's own page")
        except SecretFileError as exc:
            log.error("console token unusable", reason=str(exc))  # noqa: TRY400 - a sentence
            raise UnavailableError("The console is unavailable; try again later.") from exc
        except httpx.TransportError as exc:
            raise UnavailableError("The console is unavailable; try again later.") from exc
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError, AttributeError) as exc:
            log.error("console rejected the request", fault=type(exc).__name__)  # noqa: TRY400 - no traceback
            raise UpstreamError("The console returned no link.") from exc
        return f"{self._url}{path}"

    def _token(self) -> str:
        return secret_files.read_text("AMARRE_AUTH_CONSOLE_TOKEN_FILE", self._token_file)
