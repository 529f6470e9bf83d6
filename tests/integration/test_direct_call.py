"""gRPC calls from the console, on a whole mesh."""

import time
from typing import Any

import httpx
import pytest

PATIENCE_SECONDS = 20


@pytest.mark.parametrize(
    ("asked", "code", "responses"),
    [
        ({"method": "health.GetStatus"}, "OK", 1),
        ({"method": "health.WatchStatus"}, "OK", 1),
        ({"method": "survey.ListRequests"}, "UNAUTHENTICATED", 0),
        ({"method": "survey.ListRequests", "identity": "health"}, "PERMISSION_DENIED", 0),
    ],
)
def test_calls(live: dict[str, Any], asked: dict[str, Any], code: str, responses: int) -> None:
    """
    A call has the outcome that the contract defines for its caller, and its trace is available.
    """
    headers = {"authorization": f"Bearer {live['console']['token']}"}
    with httpx.Client(
        base_url=live["urls"]["console"], headers=headers, trust_env=False, timeout=15
    ) as client:
        found = client.post("/api/calls", json=asked).json()
        ends = time.monotonic() + PATIENCE_SECONDS
        while not (trace := client.get(f"/api/traces/{found['trace_id']}")).is_success:
            assert time.monotonic() < ends, trace.text
            time.sleep(0.2)

    assert (code, responses) == (found["code"], len(found["responses"]))
    assert found["deadline_ms"] > found["duration_ms"] > 0
    for one in found["responses"]:
        assert one["bytes"] * 2 == len(one["wire"])
        assert one["json"]["status"]["status"].startswith("HEALTH_STATUS_")
    service = asked["method"].partition(".")[0]
    assert any(span["service"].startswith(service) for span in trace.json()["spans"])
