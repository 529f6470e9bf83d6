"""Metrics of every process, and the ``/metrics`` endpoint."""

import asyncio
import functools
import itertools
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from mesh.chassis.telemetry import names
from mesh.contract import redaction

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 3, 5, 10, 30)
"""Bucket bounds in seconds; they include every latency objective, so that those are exact."""

RPC_SECONDS = Histogram(
    names.RPC_SERVER_DURATION,
    "Duration of calls at the server.",
    ["service", "method", "code", "reason"],
    buckets=LATENCY_BUCKETS,
)
RPC_CLIENT_SECONDS = Histogram(
    names.RPC_CLIENT_DURATION,
    "Duration of calls at the client.",
    ["service", "method", "code"],
    buckets=LATENCY_BUCKETS,
)
RPC_IN_FLIGHT = Gauge(names.RPC_SERVER_IN_FLIGHT, "Calls in flight.", ["service"])
RPC_CALLS = Counter(names.RPC_SERVER_CALLS, "Calls by caller.", ["service", "method", "caller"])
REFUSALS = Counter(
    names.REFUSALS,
    "Calls denied by policy or without a valid session.",
    ["service", "method", "reason"],
)
LIMIT_REFUSALS = Counter(
    names.LIMIT_REFUSALS, "Requests, streams or connections rejected by a limit.", ["limit"]
)
LOOP_LAG = Histogram(
    names.EVENT_LOOP_LAG,
    "Delay of the event loop beyond the requested wake-up time.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
BUILD_INFO = Gauge(
    names.BUILD_INFO, "Always 1. The label is the version of the program.", ["version"]
)
BUILD_INFO.labels(metadata.version("amarre-mesh")).set(1)
LOG_LINES_LOST = Counter(names.LOG_LINES_LOST, "Log lines that could not be written.")
SLOW_CALLS_NOT_RECORDED = Counter(
    names.SLOW_CALLS_NOT_RECORDED,
    "Slow calls without a log line and a late span, because there were too many.",
)
BACKGROUND_FAILURES = Counter(names.BACKGROUND_FAILURES, "Failures of background tasks.", ["task"])
BACKGROUND_UP = Gauge(
    names.BACKGROUND_UP, "Whether a background task runs: 1, or 0 while it fails.", ["task"]
)
DEPENDENCY_UP = Gauge(
    names.DEPENDENCY_UP,
    "Whether the last check of a dependency succeeded: 1, or 0 while it fails.",
    ["dependency"],
)
HTTP_CLIENT_SECONDS = Histogram(
    names.HTTP_CLIENT_DURATION,
    "Duration of requests to HTTP systems outside the mesh.",
    ["backend", "status"],
    buckets=LATENCY_BUCKETS,
)
DB_SECONDS = Histogram(
    names.DB_DURATION,
    "Duration of database statements.",
    ["operation"],
    buckets=LATENCY_BUCKETS,
)
DB_CONNECTIONS = Gauge(names.DB_CONNECTIONS, "Database connections in use.")

_END = b"# EOF\n"
LAG_SECONDS = 0.5
ACTIVE_SECONDS = 15 * 60.0
MOST_USERS = 100_000


class MetricsListenError(Exception):
    """The address of ``/metrics`` cannot be bound; the message says what to do."""


def expose(address: str) -> None:
    """Serve the metrics on *address* from a thread: as OpenMetrics, with exemplars, if requested.

    Raises:
        MetricsListenError: The address cannot be bound.
    """
    host, _, port = address.rpartition(":")
    try:
        server, _ = start_http_server(int(port), host)
    except (OSError, ValueError, OverflowError) as exc:
        raise MetricsListenError(
            f"Cannot serve /metrics on {address!r} ({exc}). Stop the other program or set "
            "AMARRE_METRICS_LISTEN to another HOST:PORT."
        ) from exc
    server.set_app(_Page(REGISTRY))


def redacted(family: Metric) -> Metric:
    """Return *family* with the values of its labels redacted; itself if there is nothing to do."""
    if all(itertools.starmap(_is_clean, (p for s in family.samples for p in s.labels.items()))):
        return family
    changed = Metric(family.name, family.documentation, family.type, family.unit)
    changed.samples = [
        sample._replace(labels=redaction.value("", sample.labels)) for sample in family.samples
    ]
    return changed


@functools.lru_cache(maxsize=8192)
def _is_clean(label: str, value: str) -> bool:
    return bool(value == redaction.value(label, value))


class _Family(Collector):
    """A registry of one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        yield self._family


class _Page:
    """The page of all metrics, a WSGI application.

    The text of a family is cached while its samples are unchanged: formatting is the most
    expensive part, and most families of an idle process do not change.
    """

    def __init__(self, registry: Collector) -> None:
        self._registry = registry
        self._texts: dict[str, tuple[str, list[Sample], bytes]] = {}

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> list[bytes]:
        encode, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        start_response("200 OK", [("Content-Type", content_type)])
        texts = [self._text(family, encode, content_type) for family in self._registry.collect()]
        return [b"".join(texts), _END if "openmetrics" in content_type else b""]

    def _text(
        self, family: Metric, encode: Callable[[Collector], bytes], content_type: str
    ) -> bytes:
        known = self._texts.get(family.name)
        if known is None or known[:2] != (content_type, family.samples):
            text = encode(_Family(redacted(family))).removesuffix(_END)
            known = self._texts[family.name] = content_type, family.samples, text
        return known[2]


async def watch_loop() -> None:
    """Measure until cancelled how late the event loop wakes up; a busy loop delays every call."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        LOOP_LAG.observe(max(0.0, loop.time() - due))


class ActiveUsers(Collector):
    """Number of users who called within the last 15 minutes."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}

    def saw(self, user_id: str) -> None:
        """Record a call of *user_id*."""
        # Removed first, so that the dictionary is ordered by last call.
        self._seen.pop(user_id, None)
        self._seen[user_id] = time.monotonic()
        if len(self._seen) > MOST_USERS:
            del self._seen[next(iter(self._seen))]

    def collect(self) -> Iterator[Metric]:
        """Yield the gauge."""
        since = time.monotonic() - ACTIVE_SECONDS
        # A copy: another thread records calls.
        for user_id, at in list(self._seen.items()):
            if at >= since:
                break
            self._seen.pop(user_id, None)
        yield GaugeMetricFamily(
            names.USERS_ACTIVE, "Users who called in the last 15 minutes.", len(self._seen)
        )


class Certificate(Collector):
    """Validity period of the certificate of this process."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def collect(self) -> Iterator[Metric]:
        """Yield both ends; nothing if there is no certificate, as with a sidecar."""
        try:
            leaf = x509.load_pem_x509_certificate(self._file.read_bytes())
        except (OSError, ValueError):
            return
        yield GaugeMetricFamily(
            names.CERTIFICATE_NOT_BEFORE,
            "Start of the certificate's validity, Unix time.",
            leaf.not_valid_before_utc.timestamp(),
        )
        yield GaugeMetricFamily(
            names.CERTIFICATE_NOT_AFTER,
            "End of the certificate's validity, Unix time.",
            leaf.not_valid_after_utc.timestamp(),
        )


ACTIVE_USERS = ActiveUsers()
REGISTRY.register(ACTIVE_USERS)
