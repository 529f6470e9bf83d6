"""
A process that serves real metrics and falls ill when told: ``fail``, ``heal`` on stdin.

``python -m tests.observability.patient 127.0.0.1:PORT``
"""

import sys
import threading
import time

from mesh.chassis.telemetry import metrics

CALLS_A_SECOND = 50
TRACE = "0af7651916cd43dd8448eb211c80319c"


def main() -> None:
    """Serve until stdin ends."""
    metrics.expose(sys.argv[1])
    ill = threading.Event()
    threading.Thread(target=_work, args=(ill,), daemon=True).start()
    print("ready", flush=True)
    for order in sys.stdin:
        if order.strip() == "fail":
            ill.set()
        else:
            ill.clear()


def _work(ill: threading.Event) -> None:
    while True:
        code, reason = ("UNAVAILABLE", "UNAVAILABLE") if ill.is_set() else ("OK", "")
        metrics.RPC_SECONDS.labels("survey", "ListRequests", code, reason).observe(
            0.02, {"trace_id": TRACE}
        )
        time.sleep(1 / CALLS_A_SECOND)


if __name__ == "__main__":
    main()
