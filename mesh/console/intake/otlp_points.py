"""Values, buckets and kinds of OTLP data points."""

import itertools
import math
from typing import Any, NamedTuple

from mesh.console.histograms import (
    MAX_BUCKETS,
    SCALES,
    Explicit,
    Exponential,
    Histogram,
    encode,
)

_DELTA, _CUMULATIVE = 1, 2


class BadPointError(Exception):
    """A point contradicts itself; the argument is one of the intake's `REASONS`."""


class Measured(NamedTuple):
    """The value of a point, or count, sum and stored buckets of a histogram."""

    value: float
    total: float = 0.0
    buckets: str = ""


def measured(kind: str, data: Any, point: Any) -> Measured:
    """
    Return what *point* measured; *kind* is the field of its metric that holds *data*.

    Raises:
        BadPointError: It has no value, is not finite, is negative although its sum is monotonic,
            or its buckets do not fit together.
    """
    if kind == "histogram":
        found = _stored(_explicit(point))
    elif kind == "exponential_histogram":
        found = _stored(_exponential(point))
    elif kind == "summary":
        found = ""
    else:
        which = point.WhichOneof("value")
        if which is None:
            raise BadPointError("no_value")
        value = float(getattr(point, which))
        if value < 0 and kind == "sum" and data.is_monotonic:
            raise BadPointError("negative")
        return _finite(Measured(value))
    return _finite(Measured(float(point.count), point.sum, found))


def _finite(found: Measured) -> Measured:
    if not (math.isfinite(found.value) and math.isfinite(found.total)):
        raise BadPointError("not_finite")
    return found


def _stored(histogram: Histogram | None) -> str:
    return encode(histogram) if histogram else ""


def _explicit(point: Any) -> Explicit | None:
    bounds, counts = list(point.explicit_bounds), list(point.bucket_counts)
    if not counts and not bounds:
        return None
    ascending = all(a < b for a, b in itertools.pairwise((*bounds, math.inf)))
    if len(counts) != len(bounds) + 1 or not ascending or sum(counts) != point.count:
        raise BadPointError("bad_buckets")
    # One bucket for all values, or too many to store: count and sum only.
    return Explicit(bounds, counts) if bounds and len(counts) <= MAX_BUCKETS else None


def _exponential(point: Any) -> Exponential | None:
    sides = [
        {index: count for index, count in enumerate(side.bucket_counts, start=side.offset) if count}
        for side in (point.positive, point.negative)
    ]
    counted = point.zero_count + sum(sum(side.values()) for side in sides)
    sensible = point.zero_threshold >= 0 and math.isfinite(point.zero_threshold)
    if point.scale not in SCALES or not sensible or counted != point.count:
        raise BadPointError("bad_buckets")
    if sum(map(len, sides)) > MAX_BUCKETS:
        return None
    return Exponential(point.scale, point.zero_count, point.zero_threshold, *sides)


def series_kind(kind: str, data: Any) -> str:
    """
    Return the kind of a metric; ``delta`` points are not cumulative.

    Raises:
        BadPointError: It does not say which of the two its points are.
    """
    if kind in {"gauge", "summary"}:
        return kind
    if data.aggregation_temporality not in {_DELTA, _CUMULATIVE}:
        raise BadPointError("no_temporality")
    form = {"sum": "counter" if getattr(data, "is_monotonic", False) else "sum"}.get(kind, kind)
    return f"{form}, delta" if data.aggregation_temporality == _DELTA else form
