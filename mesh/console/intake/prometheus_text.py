"""
Parses the Prometheus text format and OpenMetrics, for the metrics that the console stores.

Calls are stored as increases since the last scrape, so that sums over any time range are exact
across restarts; other metrics are stored as read.
"""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from prometheus_client.core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from mesh.chassis.telemetry import names as emitted
from mesh.console import histograms
from mesh.console.intake import series_labels
from mesh.console.naming import NO_ROUTE, PROBE_PATHS
from mesh.console.store.rows import Point

RPC_SECONDS = emitted.RPC_CLIENT_DURATION
"""The client's view: includes calls that a proxy ended or that reached no server."""
HTTP_SECONDS = emitted.HTTP_SERVER_DURATION
CALLS = emitted.RPC_SERVER_CALLS.removesuffix("_total")
KEPT = ("amarre_", "process_", "node_load", "node_memory_MemAvailable", "node_filesystem_avail")
"""Prefixes of the families whose points are stored."""
GATEWAY = "gateway"
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_FAMILY = re.compile(r"^# (?:HELP|TYPE|UNIT) (\S+)", re.MULTILINE)
Key = tuple[str, str, str, str]
"""Service, method, code, reason."""


class Tally(NamedTuple):
    """A histogram of calls: count, total duration in seconds, cumulative count by bound."""

    calls: float
    seconds: float
    buckets: Mapping[str, float]

    def since(self, before: "Tally | None") -> "Tally":
        """Return the increase since *before*; everything if the process restarted."""
        if before is None or self.calls < before.calls:
            return self
        return Tally(
            self.calls - before.calls,
            self.seconds - before.seconds,
            {bound: n - before.buckets.get(bound, 0) for bound, n in self.buckets.items()},
        )


class Exemplar(NamedTuple):
    """An exemplar: a call in a bucket, with its trace."""

    key: Key
    bound: str
    trace_id: bytes
    seconds: float
    at: int
    """Microseconds since the epoch."""


@dataclass
class Reading:
    """One reading of a process's metrics, or of one family."""

    tallies: dict[Key, Tally] = field(default_factory=dict)
    callers: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """Calls by service, method and caller since the process started."""
    points: list[Point] = field(default_factory=list)
    exemplars: list[Exemplar] = field(default_factory=list)


Families = dict[str, Reading]
"""The parsed families by their text: most families of an idle process do not change."""


OPENMETRICS = "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8"
"""The Accept header; ``allow-utf-8`` saves prometheus-client from escaping names."""
_END = "# EOF"


def read(text: str, *, process: str, at: int, families: Families | None = None) -> Reading:
    """
    Parse the metrics that *process* exposed at the time *at*; only OpenMetrics has exemplars.

    Args:
        text: The response body.
        process: The process that exposed the metrics.
        at: Microseconds since the epoch.
        families: The cache of the process's last reading; updated in place.

    Raises:
        ValueError: The text is in neither format.
    """
    before = dict(families or {})
    found: Families = {}
    ends = text.rstrip().endswith(_END)
    parse = openmetrics.text_string_to_metric_families if ends else text_string_to_metric_families
    reading = Reading()
    for part in _parts(text.rstrip().removesuffix(_END)):
        known = before.get(part)
        if known is None:
            known = Reading()
            for family in parse(f"{part}{_END}\n" if ends else part):
                _add(known, family, process, at)
        found[part] = known
        reading.tallies |= known.tallies
        reading.callers |= known.callers
        reading.points += [point._replace(at=at) for point in known.points]
        reading.exemplars += known.exemplars
    if families is not None:
        families.clear()
        families |= found
    return reading


def _parts(text: str) -> Iterator[str]:
    """Yield the text of each stored family, and any text before the first family."""
    starts, name = [0], ""
    for found in _FAMILY.finditer(text):
        if found[1] != name:
            name = found[1]
            starts.append(found.start())
    for start, end in itertools.pairwise((*starts, len(text))):
        part = text[start:end]
        named = _FAMILY.match(part)
        if part and (named is None or named[1].startswith(KEPT)):
            yield part


def _add(reading: Reading, family: Metric, process: str, at: int) -> None:
    if family.name in {RPC_SECONDS, HTTP_SECONDS}:
        reading.tallies.update(_tallies(family.name, family.samples))
        reading.exemplars.extend(_exemplars(family.name, family.samples, at))
    elif family.name == CALLS:
        for sample in family.samples:
            if sample.name.endswith("_total"):
                labels = sample.labels
                key = (labels["service"], labels["method"], labels["caller"])
                reading.callers[key] = sample.value
    elif family.name.startswith(KEPT):
        reading.points.extend(_points(family, process, at))


def _tallies(name: str, samples: Iterable[Sample]) -> dict[Key, Tally]:
    parts: dict[Key, tuple[dict[str, float], dict[str, float]]] = {}
    for sample in samples:
        if sample.labels.get("route") in PROBE_PATHS:
            continue
        key = _rpc_key(sample.labels) if name == RPC_SECONDS else _http_key(sample.labels)
        sums, buckets = parts.setdefault(key, ({}, {}))
        if sample.name.endswith("_bucket"):
            buckets[_bound(sample.labels["le"])] = sample.value
        else:
            sums[sample.name.removeprefix(name)] = sample.value
    return {
        key: Tally(sums.get("_count", 0), sums.get("_sum", 0), buckets)
        for key, (sums, buckets) in parts.items()
    }


def _exemplars(name: str, samples: Iterable[Sample], at: int) -> Iterator[Exemplar]:
    for sample in samples:
        found = sample.exemplar
        text = found.labels.get("trace_id", "") if found else ""
        if not found or not _TRACE_ID.fullmatch(text):
            continue
        if sample.labels.get("route") in PROBE_PATHS:
            continue
        key = _rpc_key(sample.labels) if name == RPC_SECONDS else _http_key(sample.labels)
        seen = int(float(found.timestamp) * 1e6) if found.timestamp else at
        # With a clock ahead of ours, the call would lie beyond the right edge of every chart.
        bound = _bound(sample.labels["le"])
        yield Exemplar(key, bound, bytes.fromhex(text), found.value, min(seen, at))


def _rpc_key(labels: Mapping[str, str]) -> Key:
    return labels["service"], labels["method"], labels["code"], labels.get("reason", "")


def _http_key(labels: Mapping[str, str]) -> Key:
    path = labels.get("route", "")
    route = f"{labels.get('method', '')} {NO_ROUTE if path == 'other' else path}".strip()
    return GATEWAY, route, labels.get("status", ""), ""


def _bound(text: str) -> str:
    return "+Inf" if text == "+Inf" else f"{float(text):g}"


def _points(family: Metric, process: str, at: int) -> Iterator[Point]:
    """Yield counters and gauges unchanged, histograms as count, sum and buckets."""
    histogram = family.type == "histogram"
    grouped: dict[str, dict[str, float]] = {}
    buckets: dict[str, dict[float, float]] = {}
    for sample in family.samples:
        suffix = sample.name.removeprefix(family.name) if histogram else ""
        if sample.name.endswith("_created"):
            continue
        known = dict(sample.labels)
        bound = known.pop("le", "") if suffix == "_bucket" else ""
        kept = series_labels.of_sample(known)
        if bound:
            buckets.setdefault(kept, {})[float(bound)] = sample.value
        else:
            grouped.setdefault(kept, {})[suffix] = sample.value
    for kept, values in grouped.items():
        value, total = values.get("_count" if histogram else "", 0.0), values.get("_sum", 0.0)
        # NaN means that the process has no current value: a gap.
        if math.isfinite(value) and math.isfinite(total):
            found = _buckets(buckets.get(kept, {}), value)
            yield Point(process, family.name, kept, at, value, total, found, family.type)


def _buckets(cumulative: Mapping[float, float], count: float) -> str:
    """Return the stored form of *cumulative* counts by upper bound; empty if they contradict."""
    bounds = sorted(cumulative)
    before = (0.0, *(cumulative[bound] for bound in bounds))
    counts = [upper - lower for lower, upper in itertools.pairwise(before)]
    if not bounds or bounds[-1] != math.inf or before[-1] != count or min(counts) < 0:
        return ""
    # Most counts are whole; as such they take fewer characters.
    whole = [int(n) if n.is_integer() else n for n in counts]
    return histograms.encode(histograms.Explicit(bounds[:-1], whole))
