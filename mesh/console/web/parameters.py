"""Strict parsing of query parameters: an unknown parameter is an error."""

import re
import string
from collections.abc import Iterable
from datetime import datetime, timedelta

from starlette.datastructures import QueryParams
from starlette.requests import Request

from mesh.console.store.reader import BadRequestError

_DURATION = re.compile(r"(\d{1,11})(s|m|h|d)", re.ASCII)
_MILLISECONDS = re.compile(r"\d{1,9}(?:\.\d+)?", re.ASCII)
_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[ +-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)
"""RFC 3339, section 5.6; a plus sign that is not percent-encoded is decoded as a space."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
WINDOWS = timedelta(seconds=10), timedelta(days=7)
MAX_SPAN = timedelta(days=31)
_TIMES = "an RFC 3339 time such as 2026-01-05T12:00:00Z, a relative one such as -15m, or now"


class Query:
    """The query parameters of one request."""

    def __init__(self, given: QueryParams, known: Iterable[str]) -> None:
        """
        Check the parameter names.

        Raises:
            BadRequestError: A parameter is not in *known*, or is given twice.
        """
        accepted = set(known)
        for name in given:
            if name not in accepted:
                names = ", ".join(sorted(accepted)) or "none"
                raise BadRequestError(f"{name[:60]} is not a parameter here; accepted: {names}.")
            if len(given.getlist(name)) > 1:
                raise BadRequestError(f"{name} is given twice.")
        self._given = given

    def text(self, name: str, default: str = "") -> str:
        """Return a string of at most 500 characters."""
        value = self._given.get(name, default)
        if len(value) > 500:
            raise BadRequestError(f"{name} is longer than 500 characters.")
        return value

    def part(self, name: str) -> str:
        """Return a string to search for in texts; SQLite's LIKE ends at a null character."""
        value = self.text(name)
        if "\0" in value:
            raise BadRequestError(f"{name} must not contain a null character.")
        return value

    def attribute(self, name: str) -> str:
        """Return an attribute as ``key=value``; empty if absent."""
        value = self.text(name)
        if value and value.find("=") < 1:
            raise BadRequestError(f"{name} must be key=value.")
        return value

    def one_of(self, name: str, *accepted: str) -> str:
        """Return one of *accepted*; empty if absent."""
        value = self._given.get(name, "")
        if value and value not in accepted:
            raise BadRequestError(f"{name} must be one of {', '.join(accepted)}.")
        return value

    def flag(self, name: str) -> bool:
        """Return whether the value is ``true``."""
        return self.one_of(name, "true", "false") == "true"

    def integer(self, name: str, default: int, *, most: int) -> int:
        """Return an integer from 1 to *most*; larger values are capped."""
        value = self._given.get(name, str(default))
        if not value.isascii() or not value.isdigit() or len(value) > 12 or int(value) < 1:
            raise BadRequestError(
                f"{name} must be a positive integer; more than {most} counts as {most}."
            )
        return min(int(value), most)

    def milliseconds(self, name: str) -> int | None:
        """Return a duration given in milliseconds as microseconds; None if absent."""
        value = self._given.get(name)
        if value is None:
            return None
        if not _MILLISECONDS.fullmatch(value):
            raise BadRequestError(f"{name} must be a number of milliseconds, from 0 to 999999999.")
        return int(float(value) * 1000)

    def moment(self, name: str, now: int = 0) -> int:
        """
        Return a time in microseconds, at least 1; 0 if absent.

        The value is RFC 3339, or relative to *now*: ``-15m``, ``now``.
        """
        value = self._given.get(name)
        if value is None:
            return 0
        if value == "now":
            return now
        if relative := _DURATION.fullmatch(value.removeprefix("-")):
            if not value.startswith("-"):
                raise BadRequestError(f"{name} must be {_TIMES}.")
            return max(1, now - int(relative[1]) * _UNITS[relative[2]] * 1_000_000)
        if not _RFC_3339.fullmatch(value):
            raise BadRequestError(f"{name} must be {_TIMES}.")
        try:
            parsed = datetime.fromisoformat(f"{value[:10]}T{value[11:].replace(' ', '+').upper()}")
            return max(1, int(parsed.timestamp() * 1e6))
        except (OverflowError, OSError, ValueError):
            raise BadRequestError(f"{name} must be {_TIMES}.") from None

    def either(self, name: str, other: str, now: int) -> int:
        """Return the time *name*, which may also be given as *other*; 0 if absent."""
        if name in self._given and other in self._given:
            raise BadRequestError(f"{other} is an alias of {name}; give only one of them.")
        return self.moment(name if name in self._given else other, now)

    def times(self, now: int) -> tuple[int, int]:
        """
        Return the times ``from`` and ``to`` of a list; 0 if absent.

        ``since`` and ``until`` are aliases.
        """
        since, until = self.either("from", "since", now), self.either("to", "until", now)
        if until and since >= until:
            raise BadRequestError("from must be before to.")
        return since, until

    def page_token(self) -> str:
        """Return the token of the next page, ``pageToken`` or ``page_token``."""
        if "pageToken" in self._given and "page_token" in self._given:
            raise BadRequestError("page_token is an alias of pageToken; give only one of them.")
        return self.text("page_token") or self.text("pageToken")

    def follow(self) -> bool:
        """Return whether to stream new items; a stream has neither an end nor pages."""
        for name in ("to", "until", "page_token", "pageToken"):
            if self.flag("follow") and name in self._given:
                raise BadRequestError(f"follow cannot be combined with {name}.")
        return self.flag("follow")

    def span(self, now: int, default: str) -> tuple[int, int]:
        """
        Return the times ``from`` and ``to`` in microseconds, or derive them from ``window``.

        Without any of them, the range is *default* long and ends now.
        """
        if "window" in self._given and ("from" in self._given or "to" in self._given):
            raise BadRequestError("window cannot be combined with from and to.")
        until = self.moment("to", now) or now
        if "from" in self._given:
            since = self.moment("from", now)
        else:
            since = until - int(self.window("window", default).total_seconds() * 1e6)
        if since >= until:
            raise BadRequestError("from must be before to.")
        if until - since > MAX_SPAN.total_seconds() * 1e6:
            raise BadRequestError("from and to must not be more than 31 days apart.")
        return since, until

    def window(self, name: str, default: str) -> timedelta:
        """Return a duration such as ``15m`` between 10 seconds and 7 days."""
        found = _DURATION.fullmatch(self._given.get(name, default))
        seconds = int(found[1]) * _UNITS[found[2]] if found else 0
        least, most = WINDOWS
        if not least.total_seconds() <= seconds <= most.total_seconds():
            raise BadRequestError(f"{name} must be a duration such as 15m, from 10s to 7d.")
        return timedelta(seconds=seconds)


_ID_LENGTHS = {"trace_id": 32, "span_id": 16}


def identifier(request: Request, name: str) -> bytes:
    """
    Return the trace or span id in the path.

    Raises:
        BadRequestError: It is not one.
    """
    text, length = request.path_params[name], _ID_LENGTHS[name]
    if len(text) != length or not set(text) <= set(string.hexdigits):
        raise BadRequestError(f"A {name.replace('_', ' ')} has {length} hexadecimal characters.")
    return bytes.fromhex(text)
