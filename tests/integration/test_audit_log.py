"""Control actions on a running mesh are logged, from every source."""

import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx


def test_actions_are_logged(live: Any) -> None:
    """
    An action from the terminal and one from the console's API are in the logs of kind security,
    with operator and outcome; the runner's own output shows them in plain text if it is not a
    terminal.
    """
    data = Path(live["pki"]["ca"]).parents[2]
    nobody = f"nobody-{secrets.token_hex(4)}"  # Other tests send actions to this mesh, too.
    command = (sys.executable, "-m", "mesh.cli", "fault", "clear", "--data", str(data))
    given = subprocess.run([*command, nobody], capture_output=True, check=False)
    token = {"Authorization": f"Bearer {live['console']['token']}"}
    with httpx.Client(
        base_url=live["urls"]["console"], headers=token, trust_env=False, timeout=60
    ) as console:
        asked = {"order": "restart", "service": nobody}
        refused = console.post("/api/orders", json=asked)
        assert (given.returncode, refused.status_code) == (2, 409)

        found = _found(console, nobody, count=2)

    assert {line["message"] for line in found} == {"control action failed"}
    assert {line["service"] for line in found} == {"runner"}
    page, terminal = (line["attributes"] for line in found)
    assert ("fault clear", f"method={nobody}") == (terminal["action"], terminal["arguments"])
    assert terminal["by"].endswith("(terminal)")
    assert "has no fault" in terminal["error"]
    assert ("restart", f"service={nobody}") == (page["action"], page["arguments"])
    assert page["by"].endswith("(console)")
    output = (data.parent / "up.log").read_text()
    assert "control action failed" in output
    assert "\x1b" not in output


def _found(console: httpx.Client, text: str, count: int) -> list[dict[str, Any]]:
    """Wait until *count* security lines of the runner contain *text*; the newest first."""
    deadline = time.monotonic() + 20
    while True:
        asked = {"kind": "security", "service": "runner", "q": text}
        found: list[dict[str, Any]] = console.get("/api/logs", params=asked).json()["items"]
        if len(found) >= count or time.monotonic() > deadline:
            return found
        time.sleep(0.1)
