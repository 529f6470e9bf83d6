"""Client of the console API, for the terminal commands."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.command_line import UserError
from mesh.control import current_user

if TYPE_CHECKING:
    import httpx


class Client:
    """Client of the console API."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._headers = {"authorization": f"Bearer {token}"}

    def get(self, path: str, **parameters: Any) -> Any:
        """
        Return the JSON of an endpoint; empty parameters are omitted.

        Raises:
            UserError: The console is unavailable or rejects the request.
        """
        return self._ask("GET", path, parameters)

    def link(self) -> str:
        """Return a one-time sign-in link for this user; raises like `get`."""
        return f"{self.url}{self._ask('POST', 'codes', {'who': current_user()})['path']}"

    def _ask(self, verb: str, path: str, parameters: dict[str, Any]) -> Any:
        import httpx

        try:
            answer = httpx.request(
                verb,
                f"{self.url}/api/{path}",
                params=_present(parameters),
                headers=self._headers,
                timeout=10,
                trust_env=False,
            )
            body = answer.json()
        except (httpx.HTTPError, ValueError) as exc:
            raise self._unavailable() from exc
        if not answer.is_success:
            message = body.get("error", {}).get("message", f"HTTP {answer.status_code}")
            raise UserError(_naming_options(message, parameters))
        return body

    def follow(self, path: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Yield items as they arrive, until the console stops; raises like `get`."""
        with self._stream(path, None, **parameters, follow="true") as answer:
            for line in answer.iter_lines():
                if line:
                    yield json.loads(line)

    def save(self, path: str, file: Path) -> None:
        """Write the response of an endpoint to *file* atomically; raises like `get`."""
        part = file.with_name(f"{file.name}.part")
        try:
            with self._stream(path, 300) as answer, part.open("wb") as into:
                for chunk in answer.iter_bytes():
                    into.write(chunk)
            part.replace(file)
        except OSError as exc:
            raise UserError(f"{file} cannot be written ({exc.strerror}).") from exc
        finally:
            part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _stream(
        self, path: str, read_seconds: float | None, **parameters: Any
    ) -> Iterator["httpx.Response"]:
        import httpx

        try:
            with httpx.stream(
                "GET",
                f"{self.url}/api/{path}",
                params=_present(parameters),
                headers=self._headers,
                timeout=httpx.Timeout(10, read=read_seconds),
                trust_env=False,
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    message = answer.json()["error"]["message"]
                    raise UserError(_naming_options(message, parameters))
                yield answer
        except httpx.HTTPError as exc:
            raise self._unavailable() from exc

    def _unavailable(self) -> UserError:
        return UserError(f"The console at {self.url} does not respond. See `amarre status`.")


def _naming_options(message: str, parameters: dict[str, Any]) -> str:
    """Return *message*, which may begin with a parameter of the API, with the option instead."""
    name, _, rest = message.partition(" ")
    if name not in parameters:
        return message
    option = {"q": "TEXT", "trace_id": "--trace"}.get(name, f"--{name.replace('_', '-')}")
    return f"{option} {rest}"


def _present(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value not in ("", None)}
