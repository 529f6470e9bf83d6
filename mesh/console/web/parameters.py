"""Parameters of the API: read strictly, so that a misspelt one is told and not passed over."""

import math
import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from starlette.datastructures import QueryParams

from mesh.console.store.reader import BadRequestError

_DURATION = re.compile(r"(\d+)(s|m|h|d)")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
WINDOWS = timedelta(seconds=10), timedelta(days=7)


class Query:
    """The parameters of one request."""

    def __init__(self, given: QueryParams, known: Iterable[str]) -> None:
        """
        Check names.

        Raises:
            BadRequestError: A parameter is not *known*, or given twice.
        """
        accepted = set(known)
        for name in given:
            if name not in accepted:
                raise BadRequestError(f"{name[:60]} is none of {', '.join(sorted(accepted))}.")
            if len(given.getlist(name)) > 1:
                raise BadRequestError(f"{name} is given twice.")
        self._given = given

    def text(self, name: str, default: str = "") -> str:
        """Return a text of at most 500 characters."""
        value = self._given.get(name, default)
        if len(value) > 500:
            raise BadRequestError(f"{name} is longer than 500 characters.")
        return value

    def one_of(self, name: str, *accepted: str) -> str:
        """Return one of *accepted*; empty when it is not given."""
        value = self._given.get(name, "")
        if value and value not in accepted:
            raise BadRequestError(f"{name} must be one of {', '.join(accepted)}.")
        return value

    def flag(self, name: str) -> bool:
        """Return whether it is ``true``."""
        return self.one_of(name, "true", "false") == "true"

    def integer(self, name: str, default: int, *, most: int) -> int:
        """Return a whole number from 1 to *most*; more counts as *most*."""
        value = self._given.get(name, str(default))
        if not value.isascii() or not value.isdigit() or len(value) > 12 or int(value) < 1:
            raise BadRequestError(f"{name} must be a whole number above 0.")
        return min(int(value), most)

    def milliseconds(self, name: str) -> int:
        """Return a time given in milliseconds in microseconds; 0 when it is not given."""
        value = self._given.get(name)
        if value is None:
            return 0
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number < 1e9 or math.isnan(number):
            raise BadRequestError(f"{name} must be a number of milliseconds, 0 or more.")
        return int(number * 1000)

    def moment(self, name: str) -> int:
        """Return an RFC 3339 time in microseconds; 0 when it is not given."""
        value = self._given.get(name)
        if value is None:
            return 0
        try:
            parsed = datetime.fromisoformat(value)
        except ValueError:
            parsed = None
        if parsed is None or parsed.tzinfo is None:
            raise BadRequestError(f"{name} must be a time such as 2026-01-05T12:00:00Z.")
        return max(0, int(parsed.timestamp() * 1e6))

    def window(self, name: str, default: str) -> timedelta:
        """Return a duration such as ``15m`` between 10 seconds and 7 days."""
        found = _DURATION.fullmatch(self._given.get(name, default)[:12])
        seconds = int(found[1]) * _UNITS[found[2]] if found else 0
        least, most = WINDOWS
        if not least.total_seconds() <= seconds <= most.total_seconds():
            raise BadRequestError(f"{name} must be a duration such as 15m, from 10s to 7d.")
        return timedelta(seconds=seconds)
