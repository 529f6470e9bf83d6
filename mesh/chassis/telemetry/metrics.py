"""The metrics that every process has, and ``/metrics``, where Prometheus reads them."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mesh.chassis.telemetry import names

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 3, 5, 10, 30)
"""Seconds. Every latency objective of the contracts is among them and so counted exactly."""

RPC_SECONDS = Histogram(
    names.RPC_SERVER_DURATION,
    "How long calls took at the server.",
    ["service", "method", "code", "reason"],
    buckets=LATENCY_BUCKETS,
)
RPC_CLIENT_SECONDS = Histogram(
    names.RPC_CLIENT_DURATION,
    "How long calls took for those who made them.",
    ["service", "method", "code"],
    buckets=LATENCY_BUCKETS,
)
RPC_IN_FLIGHT = Gauge(names.RPC_SERVER_IN_FLIGHT, "Calls being served.", ["service"])
RPC_CALLS = Counter(
    names.RPC_SERVER_CALLS, "Calls by who made them.", ["service", "method", "caller"]
)
REFUSALS = Counter(names.REFUSALS, "Calls refused by policy.", ["service", "method", "reason"])
LIMIT_REFUSALS = Counter(
    names.LIMIT_REFUSALS, "Requests, streams or connections refused by a limit.", ["limit"]
)
LOOP_LAG = Histogram(
    names.EVENT_LOOP_LAG,
    "How much later than asked the event loop woke up.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
LOG_LINES_LOST = Counter(names.LOG_LINES_LOST, "Log lines that could not be written.")
BACKGROUND_FAILURES = Counter(names.BACKGROUND_FAILURES, "Failures of background tasks.", ["task"])
BACKGROUND_UP = Gauge(
    names.BACKGROUND_UP, "Whether a background task runs: 1, or 0 while it fails.", ["task"]
)
HTTP_CLIENT_SECONDS = Histogram(
    names.HTTP_CLIENT_DURATION,
    "How long systems outside of the mesh took to answer.",
    ["backend", "status"],
    buckets=LATENCY_BUCKETS,
)
DB_SECONDS = Histogram(
    names.DB_DURATION,
    "How long statements took at the database.",
    ["operation"],
    buckets=LATENCY_BUCKETS,
)
DB_CONNECTIONS = Gauge(names.DB_CONNECTIONS, "Database connections in use.")

LAG_SECONDS = 0.5
ACTIVE_SECONDS = 15 * 60.0
MOST_USERS = 100_000


class MetricsListenError(Exception):
    """The address of ``/metrics`` cannot be bound; the message says what to do."""


def expose(address: str) -> None:
    """
    Serve the metrics on *address* from a thread: as OpenMetrics, with exemplars, to who asks so.

    Raises:
        MetricsListenError: The address cannot be bound.
    """
    host, _, port = address.rpartition(":")
    try:
        start_http_server(int(port), host)
    except (OSError, ValueError, OverflowError) as exc:
        raise MetricsListenError(
            f"Cannot serve /metrics on {address!r} ({exc}). Stop the other program or set "
            "AMARRE_METRICS_LISTEN to another HOST:PORT."
        ) from exc


async def watch_loop() -> None:
    """Measure, until cancelled, how late the event loop is: what it cannot do makes all wait."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        LOOP_LAG.observe(max(0.0, loop.time() - due))


class ActiveUsers(Collector):
    """Counts the users who called within the last 15 minutes."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}

    def saw(self, user_id: str) -> None:
        """Note a call of *user_id*."""
        # Taken out first, so that the dictionary stays in the order of the last calls.
        self._seen.pop(user_id, None)
        self._seen[user_id] = time.monotonic()
        if len(self._seen) > MOST_USERS:
            del self._seen[next(iter(self._seen))]

    def collect(self) -> Iterator[Metric]:
        """Yield the gauge."""
        since = time.monotonic() - ACTIVE_SECONDS
        # A copy: calls go on in another thread.
        for user_id, at in list(self._seen.items()):
            if at >= since:
                break
            self._seen.pop(user_id, None)
        yield GaugeMetricFamily(
            names.USERS_ACTIVE, "Users who called in the last 15 minutes.", len(self._seen)
        )


class Certificate(Collector):
    """Tells from when until when the certificate of this process is valid."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def collect(self) -> Iterator[Metric]:
        """Yield both ends; nothing where there is no certificate, as beside a sidecar."""
        try:
            leaf = x509.load_pem_x509_certificate(self._file.read_bytes())
        except (OSError, ValueError):
            return
        yield GaugeMetricFamily(
            names.CERTIFICATE_NOT_BEFORE,
            "From when the certificate is valid.",
            leaf.not_valid_before_utc.timestamp(),
        )
        yield GaugeMetricFamily(
            names.CERTIFICATE_NOT_AFTER,
            "Until when the certificate is valid.",
            leaf.not_valid_after_utc.timestamp(),
        )


ACTIVE_USERS = ActiveUsers()
REGISTRY.register(ACTIVE_USERS)
