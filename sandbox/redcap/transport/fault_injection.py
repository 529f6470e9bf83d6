"""Fault injection and call counts, for tests that use the sandbox."""

import random
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Self, get_args

Mode = Literal["none", "500", "html", "hang", "empty", "partial", "ignore_filter"]
"""``partial`` carries the call out and sends the first half of the response as if it were whole."""
MAX_LATENCY = timedelta(minutes=10)


@dataclass(frozen=True)
class Faults:
    """How an injected fault shows itself.

    A mode without an error rate applies to every call; an error rate without a
    mode is the share of calls that return status 500.
    """

    latency: timedelta = timedelta(0)
    error_rate: float = 0.0
    mode: Mode = "none"

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Parse the complete set of faults; missing ones are off.

        Raises:
            ValueError: A key is unknown, or a value is out of range.
        """
        if not isinstance(data, dict):
            raise ValueError("Send a JSON object with latency_ms, error_rate and mode.")  # noqa: TRY004 - every error in the document is a ValueError
        unknown = sorted(set(data) - {"latency_ms", "error_rate", "mode"})
        if unknown:
            raise ValueError(f"Unknown keys: {', '.join(map(str, unknown))}.")
        latency_ms = _number(data, "latency_ms", most=MAX_LATENCY / timedelta(milliseconds=1))
        mode = data.get("mode", "none")
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}.")
        return cls(timedelta(milliseconds=latency_ms), _number(data, "error_rate", most=1.0), mode)

    def to_json(self) -> dict[str, object]:
        """Return the faults as JSON."""
        return {
            "latency_ms": self.latency / timedelta(milliseconds=1),
            "error_rate": self.error_rate,
            "mode": self.mode,
        }

    def draw(self) -> Mode:
        """The faults to inject into calls."""
        if self.mode == "none" and not self.error_rate:
            return "none"
        share = self.error_rate or 1.0
        # Not for security: decides which test calls fail.
        if random.random() >= share:  # noqa: S311
            return "none"
        return "500" if self.mode == "none" else self.mode


class Calls:
    """Call counts by operation; used from the event loop only."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def add(self, content: str, action: str) -> None:
        """Count one call."""
        self._counts[content][action] += 1

    def clear(self) -> None:
        """Reset all counts."""
        self._counts.clear()

    def to_json(self) -> dict[str, dict[str, int]]:
        """Return the counts by content and action."""
        return {content: dict(actions) for content, actions in self._counts.items()}


def _number(data: dict[str, object], name: str, *, most: float) -> float:
    value = data.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"{name} must be a number from 0 to {most:g}.")
    return float(value)
