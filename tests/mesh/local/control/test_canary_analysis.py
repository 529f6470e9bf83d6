"""When a canary is healthy, bad, or cannot be judged yet."""

import pytest

from mesh.local.control.canary_analysis import Sample, Verdict, judge


def sample(calls: int, failures: int = 0, ms: float = 10) -> Sample:
    """Return a sample whose calls all took *ms*."""
    bounds = (5.0, 10.0, 50.0, 100.0, 500.0, 1000.0)
    return Sample(calls, failures, {le: calls if le >= ms else 0 for le in bounds})


def mixed(calls: int, *, slow: int) -> Sample:
    """Return a sample with *slow* calls of half a second, the others 10 ms."""
    return Sample(calls, 0, {10.0: calls - slow, 500.0: calls})


@pytest.mark.parametrize(
    ("stable", "canary", "expected"),
    [
        pytest.param(sample(1000), sample(10), Verdict.WAIT, id="too few calls"),
        pytest.param(sample(1000), sample(100), Verdict.HEALTHY, id="as good"),
        pytest.param(sample(1000), sample(4, 4), Verdict.WAIT, id="too few failures"),
        pytest.param(sample(1000), sample(10, 5), Verdict.BAD, id="fails"),
        pytest.param(sample(1000, 500), sample(100, 50), Verdict.HEALTHY, id="both fail"),
        pytest.param(sample(1000), sample(1000, 40), Verdict.HEALTHY, id="fails a little"),
        pytest.param(sample(1000, ms=100), sample(100, ms=1000), Verdict.BAD, id="slow"),
        pytest.param(sample(1000), mixed(60, slow=9), Verdict.WAIT, id="too few slow"),
        pytest.param(sample(1000), mixed(60, slow=10), Verdict.BAD, id="slow often"),
        pytest.param(sample(1000), mixed(200, slow=9), Verdict.HEALTHY, id="slow at first"),
        pytest.param(sample(1000, ms=5), sample(100, ms=50), Verdict.HEALTHY, id="a little slower"),
        pytest.param(sample(0), sample(100, ms=1000), Verdict.HEALTHY, id="nothing to compare"),
    ],
)
def test_judge(stable: Sample, canary: Sample, expected: Verdict) -> None:
    """Failures are judged at once, success rate and p95 after enough calls."""
    assert expected is judge(stable, canary)


def test_since() -> None:
    """Only the increase counts; a restarted counter counts in full."""
    assert sample(30, 2) == sample(100, 5).since(sample(70, 3))
    assert sample(10) == sample(10).since(sample(70, 3))


def test_p95() -> None:
    """The 95th percentile is the bound of its bucket; without calls it is 0."""
    mixed = Sample(100, 0, {10.0: 94, 50.0: 95, 100.0: 100})
    assert 50.0 == mixed.p95_ms
    assert 0.0 == Sample().p95_ms
