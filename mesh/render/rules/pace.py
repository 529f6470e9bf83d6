"""Durations of rules, which tests scale down."""

from dataclasses import dataclass

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000))


@dataclass(frozen=True)
class Pace:
    """The factor by which durations are divided; 1 in production."""

    times: float = 1.0

    def __call__(self, *, minutes: float) -> str:
        """Return a duration in PromQL notation."""
        milliseconds = round(minutes * 60_000 / self.times)
        for unit, size in _UNITS:
            if milliseconds >= size and milliseconds % size == 0:
                return f"{milliseconds // size}{unit}"
        return f"{milliseconds}ms"

    def seconds(self, *, minutes: float) -> float:
        """Return a duration in seconds."""
        return minutes * 60 / self.times


REAL = Pace()
