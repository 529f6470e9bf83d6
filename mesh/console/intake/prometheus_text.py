"""
Prometheus' text format and OpenMetrics, read for what the console keeps.

Calls are kept as what was added since the last reading, so that sums over any time are exact
across restarts; other metrics as they are.
"""

import itertools
import json
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
from mesh.console.naming import PROBE_PATHS
from mesh.console.store.rows import Point

RPC_SECONDS = emitted.RPC_CLIENT_DURATION
"""As callers saw it: also calls that a proxy ended, or that found no server."""
HTTP_SECONDS = "amarre_http_server_duration_seconds"
CALLS = emitted.RPC_SERVER_CALLS.removesuffix("_total")
KEPT = ("amarre_", "process_", "node_load", "node_memory_MemAvailable", "node_filesystem_avail")
"""Families whose points are kept, by the beginning of their names."""
GATEWAY = "gateway"
_TRACE_ID = re.compile(r"[0-9a-f]{32}")
_FAMILY = re.compile(r"^# (?:HELP|TYPE|UNIT) (\S+)", re.MULTILINE)
Key = tuple[str, str, str, str]
"""Service, method, code, reason."""


class Tally(NamedTuple):
    """A histogram of calls: how many, how long in all (seconds), how many up to each bound."""

    calls: float
    seconds: float
    buckets: Mapping[str, float]

    def since(self, before: "Tally | None") -> "Tally":
        """Return what was added since *before*; everything when the process began anew."""
        if before is None or self.calls < before.calls:
            return self
        return Tally(
            self.calls - before.calls,
            self.seconds - before.seconds,
            {bound: n - before.buckets.get(bound, 0) for bound, n in self.buckets.items()},
        )


class Exemplar(NamedTuple):
    """A call that stands for a bucket: the trace by which it can be looked at."""

    key: Key
    bound: str
    trace_id: bytes
    seconds: float
    at: int
    """Microseconds since the epoch."""


@dataclass
class Reading:
    """One reading of a process' metrics, or of one family of them."""

    tallies: dict[Key, Tally] = field(default_factory=dict)
    callers: dict[tuple[str, str, str], float] = field(default_factory=dict)
    """Calls by service, method and caller, since the process began."""
    points: list[Point] = field(default_factory=list)
    exemplars: list[Exemplar] = field(default_factory=list)


Families = dict[str, Reading]
"""What was read of each family, by its text: most of a quiet process do not change."""


OPENMETRICS = "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8"
"""The format to ask for: to escape names, prometheus-client looks at each character of each."""
_END = "# EOF"


def read(text: str, *, process: str, at: int, families: Families | None = None) -> Reading:
    """
    Read what *process* exposed at the time *at*; exemplars stand in OpenMetrics alone.

    Args:
        text: The text.
        process: The process that the points are of.
        at: Microseconds since the epoch.
        families: What the last reading of the process left here; replaced by what this one found.

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
    """Yield the text of each family that is kept, and what stands before the first family."""
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
        # A clock that is ahead of ours would hide the call behind the edge of every chart.
        bound = _bound(sample.labels["le"])
        yield Exemplar(key, bound, bytes.fromhex(text), found.value, min(seen, at))


def _rpc_key(labels: Mapping[str, str]) -> Key:
    return labels["service"], labels["method"], labels["code"], labels.get("reason", "")


def _http_key(labels: Mapping[str, str]) -> Key:
    route = f"{labels.get('method', '')} {labels.get('route', '')}".strip()
    return GATEWAY, route, labels.get("status", ""), ""


def _bound(text: str) -> str:
    return "+Inf" if text == "+Inf" else f"{float(text):g}"


def _points(family: Metric, process: str, at: int) -> Iterator[Point]:
    """Yield counters and gauges as they are, histograms as count and sum."""
    histogram = family.type == "histogram"
    grouped: dict[str, dict[str, float]] = {}
    for sample in family.samples:
        suffix = sample.name.removeprefix(family.name) if histogram else ""
        if sample.name.endswith("_created") or suffix == "_bucket":
            continue
        labels = json.dumps(sample.labels, separators=(",", ":"), sort_keys=True)
        grouped.setdefault(labels, {})[suffix] = sample.value
    for labels, values in grouped.items():
        value, total = values.get("_count" if histogram else "", 0.0), values.get("_sum", 0.0)
        # NaN marks what a process does not know at the moment; it is a gap, not a value.
        if math.isfinite(value) and math.isfinite(total):
            yield Point(process, family.name, labels, at, value, total, "", family.type)
