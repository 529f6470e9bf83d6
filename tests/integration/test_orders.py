"""Orders to a running mesh stand among its logs, whoever gives them."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx


def test_orders_are_logged(live: Any) -> None:
    """
    An order of the terminal and one of the console's API are found among the logs of kind
    security, with who gave them and how they ended; the runner's own output says so in plain
    text where it is no terminal.
    """
    data = Path(live["pki"]["ca"]).parents[2]
    command = (sys.executable, "-m", "mesh.cli", "fault", "clear", "--data", str(data))
    given = subprocess.run([*command, "survey.GetPdf"], capture_output=True, check=False)
    token = {"Authorization": f"Bearer {live['console']['token']}"}
    with httpx.Client(
        base_url=live["urls"]["console"], headers=token, trust_env=False, timeout=60
    ) as console:
        asked = {"order": "restart", "service": "nobody"}
        refused = console.post("/api/orders", json=asked)
        assert (given.returncode, refused.status_code) == (2, 409)

        found = _found(console, "survey.GetPdf", "nobody")

    assert {line["message"] for line in found} == {"order refused"}
    assert {line["service"] for line in found} == {"runner"}
    terminal, page = (line["attributes"] for line in found)
    assert ("fault clear", "method=survey.GetPdf") == (terminal["order"], terminal["asked"])
    assert terminal["by"].endswith("(terminal)")
    assert "has no fault" in terminal["fault"]
    assert ("restart", "service=nobody") == (page["order"], page["asked"])
    assert page["by"].endswith("(console)")
    output = (data.parent / "up.log").read_text()
    assert "order refused" in output
    assert "\x1b" not in output


def _found(console: httpx.Client, *texts: str) -> list[dict[str, Any]]:
    """Wait until the security lines of the console hold one for each of *texts*."""
    deadline = time.monotonic() + 20
    while True:
        answers = [
            console.get("/api/logs", params={"kind": "security", "service": "runner", "q": text})
            for text in texts
        ]
        found = [line for answer in answers for line in answer.json()["items"]]
        if len(found) == len(texts) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)
