"""
The critical path of a trace: the spans that determine its duration.

Walking back from the end of the root, each moment is assigned to the child that ended last
before it, and to the span itself where no child was running.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Timing(NamedTuple):
    """Start and end of a span in microseconds, and its parent."""

    span_id: bytes
    parent_id: bytes
    start: int
    end: int


def of(spans: Sequence[tuple[bytes, bytes, int, int]]) -> dict[bytes, int]:
    """
    Return how many microseconds each span contributes to the critical path.

    Args:
        spans: ``(span_id, parent_id, start, end)`` of one trace, in any order. Clocks may
            disagree and parents may be missing; the longest span without a parent is the root.

    Returns:
        Only the spans on the path; the values add up to the duration of the root.
    """
    timings = [Timing(*span) for span in spans]
    known = {timing.span_id for timing in timings}
    children: dict[bytes, list[Timing]] = {}
    roots = []
    for timing in timings:
        if timing.parent_id in known and timing.parent_id != timing.span_id:
            children.setdefault(timing.parent_id, []).append(timing)
        else:
            roots.append(timing)
    if not roots:
        return {}
    root = max(roots, key=lambda timing: timing.end - timing.start)
    found: dict[bytes, int] = {}
    # A stack of (span, from, to) rather than recursion: traces may be deep. Every span is visited
    # once, so that a cycle of parents terminates.
    todo = [(root, root.start, root.end)]
    taken: set[bytes] = set()
    while todo:
        span, begin, moment = todo.pop()
        if span.span_id in taken:
            continue
        taken.add(span.span_id)
        own = 0
        for child in sorted(children.get(span.span_id, ()), key=lambda c: -c.end):
            end = min(child.end, moment)
            start = max(child.start, begin)
            if start >= end:
                continue
            own += moment - end
            todo.append((child, start, end))
            moment = start
        own += moment - begin
        if own or span is root:
            found[span.span_id] = own
    return found
