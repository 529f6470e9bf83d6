"""Canary analysis: compare success rate and p95 latency with the stable version."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mesh.contract import policy
from mesh.local.processes.envoy import Admin
from mesh.render.envoy.proxy import canary_of

FEWEST_CALLS = 50
"""Minimum number of calls before a canary is promoted."""
FEWEST_FAILURES = 5
"""Minimum number of failures before a canary is aborted."""
FEWEST_SLOW = 10
"""Minimum number of slow calls before an abort: the first calls of a process are always slow."""
MORE_FAILURES = 0.05
"""Maximum excess of the canary's failure rate over that of the stable version."""
SLOWER_BY, SLOWER_MS = 2.0, 100.0
"""Maximum excess of the canary's p95 over the stable version's: a factor, and milliseconds."""
_OURS = ("2", "4", "12", "13", "14", "15")
"""gRPC statuses that count as failures of the service."""


class Verdict(StrEnum):
    """Result of the analysis."""

    WAIT = "wait"
    HEALTHY = "healthy"
    BAD = "bad"


@dataclass(frozen=True)
class Sample:
    """Calls of one version over a period; buckets are cumulative counts by milliseconds."""

    calls: int = 0
    failures: int = 0
    buckets: Mapping[float, float] = field(default_factory=dict)

    def since(self, earlier: "Sample") -> "Sample":
        """Return the difference from *earlier*, or everything if the counters were reset."""
        if self.calls < earlier.calls:
            return self
        return Sample(
            self.calls - earlier.calls,
            self.failures - earlier.failures,
            {le: n - earlier.buckets.get(le, 0) for le, n in self.buckets.items()},
        )

    def __add__(self, other: "Sample") -> "Sample":
        """Return the sum of two callers' counters."""
        bounds = sorted({*self.buckets, *other.buckets})
        return Sample(
            self.calls + other.calls,
            self.failures + other.failures,
            {le: self.buckets.get(le, 0) + other.buckets.get(le, 0) for le in bounds},
        )

    @property
    def failure_share(self) -> float:
        """Failure rate, from 0 to 1."""
        return self.failures / self.calls if self.calls else 0.0

    @property
    def p95_ms(self) -> float:
        """Upper bound of the bucket that holds the 95th percentile, in ms; 0 without calls."""
        total = max(self.buckets.values(), default=0)
        if not total:
            return 0.0
        return min(le for le, count in self.buckets.items() if count >= 0.95 * total)

    def slower_than(self, ms: float) -> float:
        """Return how many calls took longer than the last bucket bound within *ms*."""
        within = max((n for le, n in self.buckets.items() if le <= ms), default=0)
        return max(self.buckets.values(), default=0) - within

    def __str__(self) -> str:
        return f"{self.calls} calls, {self.failure_share:.1%} failed, p95 {self.p95_ms:.0f} ms"


def judge(stable: Sample, canary: Sample) -> Verdict:
    """Compare both versions over the same period."""
    worse = canary.failure_share - stable.failure_share
    if canary.failures >= FEWEST_FAILURES and worse > MORE_FAILURES:
        return Verdict.BAD
    if canary.calls < FEWEST_CALLS:
        return Verdict.WAIT
    limit = max(stable.p95_ms * SLOWER_BY, stable.p95_ms + SLOWER_MS)
    if stable.calls < FEWEST_CALLS or canary.p95_ms <= limit:
        return Verdict.HEALTHY
    return Verdict.BAD if canary.slower_than(limit) >= FEWEST_SLOW else Verdict.WAIT


async def read(admin: Admin, service: str) -> tuple[Sample, Sample]:
    """Return the counters of a caller's Envoy for *service* and its canary.

    Raises:
        EnvoyError: The proxy does not respond.
    """
    pattern = rf"^cluster[.]{service}(_canary)?[.]grpc[.]"
    counters = await admin.counters(pattern + r".*[.][0-9]+$")
    found = await admin.get(
        "/stats",
        filter=pattern + ".*upstream_rq_time$",
        format="json",
        histogram_buckets="cumulative",
    )
    histograms = [part for stat in found["stats"] for part in stat.get("histograms", [])]
    return (
        _sample(service, service, counters, histograms),
        _sample(service, canary_of(service), counters, histograms),
    )


def _sample(
    service: str, cluster: str, counters: Mapping[str, int], histograms: list[dict[str, Any]]
) -> Sample:
    described = policy.load().service(service)
    # The duration of long-lived streams is up to their clients.
    names = {m.name for m in described.methods if not m.stays_open}
    prefix = f"cluster.{cluster}.grpc.{described.full_name}."
    calls = failures = 0
    for name, value in counters.items():
        method, _, status = name.removeprefix(prefix).partition(".")
        if name.startswith(prefix) and method in names:
            calls += value
            failures += value if status in _OURS else 0
    buckets: dict[float, float] = {}
    for histogram in histograms:
        found = re.fullmatch(re.escape(prefix) + r"(\w+)\.upstream_rq_time", histogram["name"])
        if found and found[1] in names:
            for bucket in histogram.get("buckets", []):
                bound = float(bucket["upper_bound"])
                buckets[bound] = buckets.get(bound, 0) + float(bucket["cumulative"])
    return Sample(calls, failures, buckets)
