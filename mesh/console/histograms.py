"""Histograms with explicit or exponential buckets: stored form, sums, differences, quantiles."""

import functools
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_BUCKETS = 1000
SCALES = range(-10, 21)
"""The scales of exponential buckets that SDKs use."""
_LARGEST_EXPONENT = 1024


class MergeError(Exception):
    """Two histograms have different bucket bounds; the message is a reason for people."""


@dataclass(frozen=True)
class Part:
    """The number of values in one bucket, above *lower* and up to *upper*."""

    lower: float
    upper: float
    count: float
    geometric: bool = False
    """Whether values are assumed to be spread evenly over the logarithm."""

    def at(self, share: float) -> float:
        """Return the value below which *share* of the bucket lies."""
        if math.isinf(self.upper):
            return self.lower
        if math.isinf(self.lower):
            return self.upper
        if self.geometric and self.lower and self.upper:
            return float(self.lower * (self.upper / self.lower) ** share)
        return self.lower + (self.upper - self.lower) * share


@dataclass(frozen=True)
class Explicit:
    """Buckets between given bounds; the last one, above all bounds, has none."""

    bounds: Sequence[float]
    counts: Sequence[float]

    def combined(self, other: "Explicit", sign: int) -> "Explicit":
        """Return the sum, or with *sign* -1 the difference."""
        if self.bounds != other.bounds:
            raise MergeError("the bucket bounds changed within the time range")
        pairs = zip(self.counts, other.counts, strict=True)
        return Explicit(self.bounds, [a + sign * b for a, b in pairs])

    def parts(self) -> Iterator[Part]:
        """Yield the buckets in ascending order; values below a positive bound are positive."""
        first = 0.0 if self.bounds and self.bounds[0] > 0 else -math.inf
        limits = itertools.pairwise((first, *self.bounds, math.inf))
        for (lower, upper), count in zip(limits, self.counts, strict=True):
            yield Part(lower, upper, count)

    def to_json(self) -> dict[str, Any]:
        """Return the stored form."""
        return {"bounds": self.bounds, "counts": self.counts}


@dataclass(frozen=True)
class Exponential:
    """
    Buckets whose bounds are powers of ``2 ** (2 ** -scale)``, by index, with one around zero.

    Source:
        OpenTelemetry metrics data model, ExponentialHistogram.
    """

    scale: int
    zero: float = 0
    threshold: float = 0.0
    positive: Mapping[int, float] = field(default_factory=dict)
    negative: Mapping[int, float] = field(default_factory=dict)

    def combined(self, other: "Exponential", sign: int) -> "Exponential":
        """Return the sum, or with *sign* -1 the difference, at the coarser scale."""
        scale = min(self.scale, other.scale)
        threshold = max(self.threshold, other.threshold)
        a, b = (one.coarser(scale, threshold) for one in (self, other))

        def merge(x: Mapping[int, float], y: Mapping[int, float]) -> dict[int, float]:
            return {i: x.get(i, 0) + sign * y.get(i, 0) for i in sorted({*x, *y})}

        return Exponential(
            scale,
            a.zero + sign * b.zero,
            threshold,
            merge(a.positive, b.positive),
            merge(a.negative, b.negative),
        )

    def coarser(self, scale: int, threshold: float) -> "Exponential":
        """Return it with a lower *scale* and a bucket around zero that is at least as wide."""
        zero, sides = self.zero, []
        for side in (self.positive, self.negative):
            kept: dict[int, float] = {}
            for index, count in side.items():
                merged = index >> (self.scale - scale)
                if _bound(merged + 1, scale) <= threshold:
                    zero += count
                else:
                    kept[merged] = kept.get(merged, 0) + count
            sides.append(kept)
        return Exponential(scale, zero, threshold, *sides)

    def parts(self) -> Iterator[Part]:
        """Yield the buckets in ascending order."""
        below, above = any(self.negative.values()), any(self.positive.values())
        for index in sorted(self.negative, reverse=True):
            lower, upper = -_bound(index + 1, self.scale), -_bound(index, self.scale)
            yield Part(lower, upper, self.negative[index], geometric=True)
        around = (
            -self.threshold if below or not above else 0.0,
            self.threshold if above or not below else 0.0,
        )
        yield Part(*around, self.zero)
        for index in sorted(self.positive):
            lower, upper = _bound(index, self.scale), _bound(index + 1, self.scale)
            yield Part(lower, upper, self.positive[index], geometric=True)

    def to_json(self) -> dict[str, Any]:
        """Return the stored form."""
        return {
            "scale": self.scale,
            "zero": self.zero,
            "threshold": self.threshold,
            "positive": self.positive,
            "negative": self.negative,
        }


Histogram = Explicit | Exponential


def _bound(index: int, scale: int) -> float:
    exponent = index * 2.0**-scale
    return math.inf if exponent >= _LARGEST_EXPONENT else 2.0**exponent


def encode(histogram: Histogram) -> str:
    """Return the stored form as text."""
    return json.dumps(histogram.to_json(), separators=(",", ":"))


def decode(text: str) -> Histogram:
    """Return the histogram that `encode` stored."""
    found = json.loads(text)
    if "bounds" in found:
        return Explicit(**found)
    for side in ("positive", "negative"):
        found[side] = {int(index): count for index, count in found[side].items()}
    return Exponential(**found)


def combined(a: Histogram, b: Histogram, sign: int = 1) -> Histogram:
    """
    Return the sum of two histograms, or with *sign* -1 their difference.

    Raises:
        MergeError: Their buckets cannot be compared.
    """
    if isinstance(a, Explicit) and isinstance(b, Explicit):
        return a.combined(b, sign)
    if isinstance(a, Exponential) and isinstance(b, Exponential):
        return a.combined(b, sign)
    raise MergeError("the kind of the buckets changed within the time range")


def total(found: Sequence[Histogram]) -> Histogram | None:
    """
    Return the sum of many histograms, in one pass; None without any.

    Raises:
        MergeError: Their buckets cannot be compared.
    """
    powers = [one for one in found if isinstance(one, Exponential)]
    if not powers or len(powers) < len(found):
        return functools.reduce(combined, found) if found else None
    scale, threshold = min(p.scale for p in powers), max(p.threshold for p in powers)
    zero, positive, negative = 0.0, dict[int, float](), dict[int, float]()
    for one in powers:
        if (one.scale, one.threshold) != (scale, threshold):
            one = one.coarser(scale, threshold)
        zero += one.zero
        for kept, side in ((positive, one.positive), (negative, one.negative)):
            for index, count in side.items():
                kept[index] = kept.get(index, 0) + count
    return Exponential(scale, zero, threshold, positive, negative)


def quantile(histogram: Histogram, share: float) -> float | None:
    """
    Return the quantile *share* as Prometheus computes it; None without values.

    Interpolates within a bucket, linearly between explicit bounds and geometrically between
    exponential ones; above the last bound, returns that bound.
    """
    parts = [part for part in histogram.parts() if part.count > 0]
    wanted, below = share * sum(part.count for part in parts), 0.0
    for part in parts:
        if below + part.count >= wanted:
            found = part.at((wanted - below) / part.count)
            return found if math.isfinite(found) else None
        below += part.count
    return parts[-1].at(1.0) if parts else None
