"""Injected faults and call counts, for tests against the sandbox."""

import random
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Self, get_args

Mode = Literal["none", "500", "html", "hang", "empty", "ignore_filter"]
MAX_LATENCY = timedelta(minutes=10)


@dataclass(frozen=True)
class Faults:
    """Fault mode.

    A mode with no error rate befalls every call; an error rate with no mode is
    the share of calls answered with status 500.
    """

    latency: timedelta = timedelta(0)
    error_rate: float = 0.0
    mode: Mode = "none"

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Read the complete set of faults; missing ones are off.

        Raises:
            ValueError: Something else than the three switches, or out of range.
        """
        if not isinstance(data, dict):
            raise ValueError("Send a JSON object with latency_ms, error_rate and mode.")  # noqa: TRY004 - every fault of the document is a ValueError
        unknown = sorted(set(data) - {"latency_ms", "error_rate", "mode"})
        if unknown:
            raise ValueError(f"Unknown switches: {', '.join(map(str, unknown))}.")
        latency_ms = _number(data, "latency_ms", most=MAX_LATENCY / timedelta(milliseconds=1))
        mode = data.get("mode", "none")
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}.")
        return cls(timedelta(milliseconds=latency_ms), _number(data, "error_rate", most=1.0), mode)

    def to_json(self) -> dict[str, object]:
        """The switches as clients write them."""
        return {
            "latency_ms": self.latency / timedelta(milliseconds=1),
            "error_rate": self.error_rate,
            "mode": self.mode,
        }

    def draw(self) -> Mode:
        """Faults to inject into calls."""
        if self.mode == "none" and not self.error_rate:
            return "none"
        share = self.error_rate or 1.0
        # Nothing here is secret: a test's dice.
        if random.random() >= share:  # noqa: S311
            return "none"
        return "500" if self.mode == "none" else self.mode


class Calls:
    """How often each operation was called; used from the event loop only."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def add(self, content: str, action: str) -> None:
        """Count one call."""
        self._counts[content][action] += 1

    def clear(self) -> None:
        """Begin again at nothing."""
        self._counts.clear()

    def to_json(self) -> dict[str, dict[str, int]]:
        """Counts by content and action."""
        return {content: dict(actions) for content, actions in self._counts.items()}


def _number(data: dict[str, object], name: str, *, most: float) -> float:
    value = data.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"{name} must be a number from 0 to {most:g}.")
    return float(value)
