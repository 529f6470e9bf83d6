"""The real REDCap sandbox as a child process of the tests."""

import json
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from mesh.chassis.testing import free_port

READY_SECONDS = 60
QUIET = {"latency_ms": 0, "error_rate": 0.0, "mode": "none"}


class Sandbox:
    """A running sandbox with the AMARRE study, or another dictionary."""

    def __init__(self, folder: Path, *, study: Path | None = None) -> None:
        self.token = secrets.token_hex(16).upper()
        self.url = f"http://127.0.0.1:{free_port()}"
        token, super_token = folder / "token", folder / "super"
        token.touch(0o600)
        token.write_text(self.token)
        super_token.write_text(secrets.token_hex(32).upper())
        self.token_file = token
        command = [sys.executable, "-m", "sandbox.redcap", "--listen", self.url[7:]]
        command += ["--database", str(folder / "redcap.db")]
        command += ["--token-file", str(token), "--super-token-file", str(super_token)]
        command += ["--study", str(study)] if study else []
        self._log = (folder / "sandbox.log").open("wb")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        self._client = httpx.Client(base_url=self.url, trust_env=False, timeout=10)

    def __enter__(self) -> "Sandbox":
        ends_at = time.monotonic() + READY_SECONDS
        while time.monotonic() < ends_at:
            try:
                if self._client.get("/_control/health").status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.05)
        self.__exit__()
        raise TimeoutError(f"The sandbox did not get ready; see {self._log.name}.")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._log.close()
        self._client.close()

    @property
    def api_url(self) -> str:
        """URL of the API."""
        return f"{self.url}/api/"

    def fault(self, **faults: Any) -> None:
        """Set faults; without arguments, clear them."""
        self._client.put("/_control/faults", json=QUIET | faults).raise_for_status()

    def calls(self) -> dict[str, int]:
        """Return the number of calls per content since the last reset."""
        counted = self._client.get("/_control/calls").json()
        return {content: sum(actions.values()) for content, actions in counted.items()}

    def clear_calls(self) -> None:
        """Reset the call counts."""
        self._client.delete("/_control/calls").raise_for_status()

    def save(self, *rows: dict[str, str]) -> None:
        """Import records like REDCap's own staff."""
        answer = self.api(content="record", action="import", data=json.dumps(rows))
        assert {"count": len({row["record_id"] for row in rows})} == answer

    def records(self, user: str) -> list[dict[str, str]]:
        """Return the records of a user."""
        found = self.api(content="record", filterLogic=f"[userid] = '{user}'")
        assert isinstance(found, list)
        return found

    def api(self, **params: str) -> Any:
        """Make one call with JSON in and out."""
        body = {"token": self.token, "format": "json", "returnFormat": "json", **params}
        answer = self._client.post("/api/", data=body)
        assert 200 == answer.status_code, answer.text
        return answer.json()


def request_row(user: str, record: str, **values: str) -> dict[str, str]:
    """Return the row of a new request of *user*."""
    created = "2026-03-01T10:00:00Z"
    return {"record_id": record, "created_at": created, "userid": user} | values
