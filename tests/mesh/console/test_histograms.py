"""Histograms: buckets of both kinds, added, subtracted and read."""

import bisect
import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest

from mesh.console import histograms
from mesh.console.histograms import Explicit, Exponential, MergeError
from mesh.console.queries import objectives

BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]
SHARES = (0.01, 0.5, 0.95, 0.99, 1.0)


def values(seed: int, count: int = 500) -> list[float]:
    """Return durations from half a millisecond to several seconds."""
    numbers = random.Random(seed)
    return [numbers.lognormvariate(-3, 1.2) for _ in range(count)]


def explicit(of: Sequence[float], bounds: Sequence[float] = BOUNDS) -> Explicit:
    """Return the histogram of values with explicit bounds."""
    counts = Counter(bisect.bisect_left(bounds, value) for value in of)
    return Explicit(list(bounds), [counts[i] for i in range(len(bounds) + 1)])


def exponential(of: Sequence[float], scale: int = 3, threshold: float = 0.0) -> Exponential:
    """Return the exponential histogram of values."""

    def side(sign: int) -> dict[int, float]:
        sized = [sign * value for value in of if sign * value > threshold]
        return dict(Counter(math.ceil(math.log2(size) * 2**scale) - 1 for size in sized))

    zero = sum(abs(value) <= threshold for value in of)
    return Exponential(scale, zero, threshold, side(1), side(-1))


class TestQuantile:
    @pytest.mark.parametrize("share", SHARES)
    def test_explicit(self, share: float) -> None:
        """
        Between explicit bounds, a quantile is that of the method's durations, and of Prometheus.
        """
        known = values(1)
        cumulative = {bound: float(sum(v <= bound for v in known)) for bound in BOUNDS}
        reference = objectives.quantile(cumulative | {math.inf: len(known)}, share)

        found = histograms.quantile(explicit(known), share)
        assert found is not None
        assert reference == pytest.approx(found * 1000, abs=0.001)

    @pytest.mark.parametrize("share", SHARES)
    @pytest.mark.parametrize("scale", [0, 3, 8])
    def test_exponential(self, scale: int, share: float) -> None:
        """
        An exponential quantile deviates from the value at that rank by at most one bucket.
        """
        known = sorted(values(2))
        exact = known[math.ceil(share * len(known)) - 1]

        found = histograms.quantile(exponential(known, scale), share)
        assert found is not None
        assert abs(math.log2(found / exact)) <= 2**-scale * 1.0001

    @pytest.mark.parametrize(
        ("known", "share", "expected"),
        [
            ([], 0.5, None),
            ([0.0] * 10, 0.5, 0.0),
            ([-4.0] * 10, 1.0, -2.0),
            ([-4.0] * 10 + [4.0] * 10, 0.25, -(8**0.5)),
            ([-4.0] * 10 + [4.0] * 10, 0.75, 8**0.5),
            ([0.0] * 10 + [4.0] * 10, 0.25, 0.0),
        ],
        ids=["none", "zeros", "negative", "lower half", "upper half", "zero and above"],
    )
    def test_signs(self, known: list[float], share: float, expected: float | None) -> None:
        """
        Negative values and zeros come before positive ones; within a bucket, powers are even.
        """
        found = histograms.quantile(exponential(known, 0), share)
        assert expected == (None if found is None else pytest.approx(found))

    def test_beyond(self) -> None:
        """
        Above the last bound, a quantile is that bound; below a negative first one, that one.
        """
        assert 2.5 == histograms.quantile(explicit([9.0]), 0.5)
        assert -1.0 == histograms.quantile(explicit([-9.0], [-1.0, 1.0]), 0.5)

    def test_huge(self) -> None:
        """
        A bucket beyond the largest number has no value that could be shown.
        """
        assert histograms.quantile(Exponential(-10, positive={1: 5}), 0.5) is None


class TestCombined:
    @pytest.mark.parametrize(("first", "second"), [(3, 3), (5, 2), (0, 4)])
    def test_sum_and_difference(self, first: int, second: int) -> None:
        """
        Histograms of two scales add up to that of all values at the coarser one, and back.
        """
        one, other = values(3), values(4)
        a, b = exponential(one, first), exponential(other, second)
        both = histograms.combined(a, b)

        assert exponential([*one, *other], min(first, second)) == both
        rest = histograms.combined(both, b, -1)
        assert isinstance(rest, Exponential)
        kept = {index: count for index, count in rest.positive.items() if count}
        assert exponential(one, min(first, second)).positive == kept

    @pytest.mark.parametrize("scales", [(3, 3, 3), (5, 2, 7)])
    def test_many(self, scales: tuple[int, ...]) -> None:
        """
        Many histograms add up to that of all values, at the coarsest scale.
        """
        batches = [values(seed, 50) for seed in range(3)]
        parts = [exponential(batch, scale) for batch, scale in zip(batches, scales, strict=True)]
        every = [value for batch in batches for value in batch]

        assert exponential(every, min(scales)) == histograms.total(parts)
        assert explicit(every) == histograms.total([explicit(batch) for batch in batches])
        assert histograms.total([]) is None

    def test_threshold(self) -> None:
        """
        With a wider bucket around zero, the values below its bound are in it.
        """
        known = [0.1, -0.1, 0.4, 4.0]
        both = histograms.combined(exponential(known, 0), exponential([], 0, threshold=0.5))

        assert exponential(known, 0, threshold=0.5) == both

    def test_explicit(self) -> None:
        """
        Explicit histograms add up if they have the same bounds.
        """
        one, other = values(5), values(6)
        assert explicit([*one, *other]) == histograms.combined(explicit(one), explicit(other))
        with pytest.raises(MergeError, match="bounds changed"):
            histograms.combined(explicit(one), explicit(other, BOUNDS[1:]))
        with pytest.raises(MergeError, match="kind of the buckets"):
            histograms.combined(explicit(one), exponential(other))


@pytest.mark.parametrize("found", [explicit([0.1, 9.0]), exponential([-0.1, 0.0, 9.0])])
def test_stored(found: histograms.Histogram) -> None:
    """
    The stored form is read back unchanged.
    """
    assert found == histograms.decode(histograms.encode(found))
