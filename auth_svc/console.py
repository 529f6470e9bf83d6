"""The way into the console for operators who have signed in; the port ``Console``."""

from pathlib import Path

import httpx
import structlog

from mesh.chassis.credentials import secret_files
from mesh.chassis.credentials.secret_files import SecretFileError
from mesh.chassis.errors import NotFoundError, UnavailableError, UpstreamError

log = structlog.get_logger("console")

TIMEOUT_SECONDS = 2.0


class NoConsole:
    """A mesh without a console of its own."""

    async def link_for(self, operator: str) -> str:
        """Refuse."""
        raise NotFoundError("This mesh has no console of its own: see its dashboards.")


class HttpConsole:
    """The console behind *url*, which gives one-time codes to the bearer of its token.

    The token is read at each use: the console makes the file, and a new one needs no restart.
    """

    def __init__(self, http: httpx.AsyncClient, url: str, token_file: Path) -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._token_file = token_file

    async def link_for(self, operator: str) -> str:
        """Return a link that opens the console once, within ten minutes."""
        try:
            answer = await self._http.post(
                f"{self._url}/api/codes",
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
            raise UnavailableError("The console does not answer; try again later.") from exc
        except httpx.TransportError as exc:
            raise UnavailableError("The console does not answer; try again later.") from exc
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError, AttributeError) as exc:
            log.error("console refused", fault=type(exc).__name__)  # noqa: TRY400 - no traceback
            raise UpstreamError("The console gave no link.") from exc
        return f"{self._url}{path}"

    def _token(self) -> str:
        return secret_files.read_text("AMARRE_AUTH_CONSOLE_TOKEN_FILE", self._token_file)
