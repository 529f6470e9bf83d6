"""The critical path of a trace."""

import pytest

from mesh.console.queries.trace_analysis import critical_path

Spans = list[tuple[bytes, bytes, int, int]]


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], {}),
        ([(b"a", b"", 0, 10)], {b"a": 10}),
        ([(b"a", b"", 0, 10), (b"b", b"a", 2, 6)], {b"a": 6, b"b": 4}),
        (
            [(b"a", b"", 0, 10), (b"b", b"a", 1, 9), (b"c", b"a", 2, 5)],
            {b"a": 2, b"b": 8},
        ),
        (
            [(b"a", b"", 0, 10), (b"b", b"a", 1, 4), (b"c", b"a", 5, 9)],
            {b"a": 3, b"b": 3, b"c": 4},
        ),
        ([(b"a", b"", 0, 10), (b"b", b"a", -5, 15)], {b"a": 0, b"b": 10}),
        ([(b"a", b"", 0, 10), (b"b", b"gone", 20, 25)], {b"a": 10}),
        ([(b"a", b"b", 0, 10), (b"b", b"a", 0, 10)], {}),
        ([(b"a", b"a", 0, 10)], {b"a": 10}),
        ([(b"a", b"", 0, 10), (b"b", b"a", 1, 9), (b"c", b"b", 3, 9)], {b"a": 2, b"b": 2, b"c": 6}),
    ],
    ids=[
        "nothing",
        "one",
        "child",
        "parallel: the last to end",
        "one after the other",
        "a clock that disagrees",
        "an orphan",
        "a ring",
        "its own parent",
        "grandchild",
    ],
)
def test_path(spans: Spans, expected: dict[bytes, int]) -> None:
    """
    Time is assigned to the child that ended last, and to the span itself without a child.
    """
    assert expected == critical_path(spans)


def test_deep() -> None:
    """
    A very deep trace does not break the algorithm, and the parts add up to the whole.
    """
    deep = [(n.to_bytes(4), (n - 1).to_bytes(4) if n else b"", n, 20_000 - n) for n in range(5_000)]

    assert 20_000 == sum(critical_path(deep).values())
