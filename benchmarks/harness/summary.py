"""Figures of slices as they are reported: medians, quantiles, and ratios to a reference."""

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.harness.load import Slice


def row(slices: Sequence[Slice], reference: Sequence[Slice]) -> dict[str, Any]:
    """Return the figures of *slices*; ratios are those of *reference* in the same round."""
    pairs = list(zip(slices, reference, strict=True))
    seconds = sorted(one for some in slices for one in some.seconds)
    each = {name: statistics.median(one.cpu[name] for one in slices) for name in slices[0].cpu}
    return {
        "requests_per_second": round(statistics.median(one.rate for one in slices)),
        "rate_to_reference": round(statistics.median(a.rate / b.rate for a, b in pairs), 2),
        "cpu_us": round(statistics.median(one.total for one in slices)),
        "reference_to_cpu": round(statistics.median(b.total / a.total for a, b in pairs), 2),
        "p50_ms": milliseconds(seconds, 0.5),
        "p99_ms": milliseconds(seconds, 0.99),
        "refused": sum(one.refused for one in slices),
        "cpu_us_of": {name: round(spent) for name, spent in each.items() if spent >= 1},
    }


def milliseconds(seconds: Sequence[float], quantile: float) -> float:
    """Return a quantile of sorted durations."""
    return round(seconds[min(int(len(seconds) * quantile), len(seconds) - 1)] * 1000, 2)
