"""Figures that benchmarks report."""

import pytest

from benchmarks.harness.load import Slice
from benchmarks.harness.summary import milliseconds, row


def slice_of(cost: float, *, rate: float = 100, refused: int = 0) -> Slice:
    """Return a slice whose requests cost *cost* microseconds in total."""
    return Slice(rate, [0.010, 0.020], {"gateway": cost, "redcap": 5_000}, refused)


class TestRow:
    def test_ratios_are_of_the_same_round(self) -> None:
        """A machine that is slower in one round does not change the ratio of that round."""
        found = row([slice_of(200), slice_of(2_000)], [slice_of(100), slice_of(1_000)])

        assert 0.5 == found["reference_to_cpu"]

    def test_sandbox(self) -> None:
        """The sandbox's CPU time is reported, and is not part of the total."""
        found = row([slice_of(200)], [slice_of(100)])

        assert 200 == found["cpu_us"]
        assert 5_000 == found["cpu_us_of"]["redcap"]

    def test_refused(self) -> None:
        """Refused requests of all rounds are added up."""
        slices = [slice_of(200, refused=1), slice_of(200, refused=2)]

        assert 3 == row(slices, slices)["refused"]


@pytest.mark.parametrize(
    ("quantile", "expected"), [(0.0, 1), (0.5, 3), (0.99, 4), (1.0, 4)], ids=str
)
def test_milliseconds(quantile: float, expected: float) -> None:
    """A quantile is one of the durations, in milliseconds."""
    assert expected == milliseconds([0.001, 0.002, 0.003, 0.004], quantile)
