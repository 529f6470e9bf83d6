"""Parameters of an API call, in every notation that clients use."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sandbox.redcap.errors import ApiError

Format = Literal["json", "csv", "xml", "odm"]

_INDEXED = re.compile(r"(?P<name>[^\[\]]+)\[[^\[\]]*\]")
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}( \d{2}:\d{2}(:\d{2})?)?", re.ASCII)
_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no", ""})


@dataclass(frozen=True)
class Upload:
    """An uploaded file."""

    name: str
    mime: str
    content: bytes


class Params:
    """The parameters of one call.

    Args:
        items: Name and value of each form field, in order; ``records[0]`` is not parsed.
        upload: The part named ``file``, if present.
    """

    def __init__(self, items: Iterable[tuple[str, str]], *, upload: Upload | None = None) -> None:
        self.upload = upload
        self._single: dict[str, str] = {}
        self._arrays: dict[str, list[str]] = {}
        for key, value in items:
            match = _INDEXED.fullmatch(key)
            if match:
                self._arrays.setdefault(match["name"], []).append(value)
            else:
                self._single[key] = value

    def text(self, name: str, default: str = "") -> str:
        """Return a string; an empty one counts as absent."""
        return self._single.get(name) or default

    def without(self, name: str) -> "Params":
        """Return the parameters without one of them."""
        kept = Params([], upload=self.upload)
        kept._single = {k: v for k, v in self._single.items() if k != name}
        kept._arrays = self._arrays
        return kept

    def with_record_names(self, stored: Mapping[str, str]) -> "Params":
        """Return the parameters with record names in their stored spelling."""
        changed = Params([], upload=self.upload)
        changed._single = dict(self._single)
        changed._arrays = dict(self._arrays)
        if "record" in changed._single:
            changed._single["record"] = stored.get(self._single["record"], self._single["record"])
        names = [stored.get(name, name) for name in self.items("records")]
        if "records" in changed._arrays:
            changed._arrays["records"] = names
        elif names:
            changed._single["records"] = ",".join(names)
        return changed

    def needed(self, name: str) -> str:
        """Return a required string."""
        value = self.text(name)
        if not value:
            raise ApiError(f'The parameter "{name}" is missing or empty.')
        return value

    def has(self, name: str) -> bool:
        """Return whether the parameter was sent, even if empty."""
        return name in self._single or name in self._arrays

    def is_array(self, name: str) -> bool:
        """Return whether it was sent as ``name[]``."""
        return name in self._arrays

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean: ``true``, ``1``, ``True`` or opposite; empty counts as absent."""
        value = self._single.get(name, "").strip().lower()
        if value in _TRUE:
            return True
        if value not in _FALSE:
            raise invalid(name)
        return default if value == "" else False

    def choice(self, name: str, allowed: Iterable[str], default: str) -> str:
        """Return one of the *allowed* values."""
        value = self.text(name, default)
        if value not in allowed:
            raise invalid(name)
        return value

    def items(self, name: str) -> list[str]:
        """Return an array or a comma-separated list, without blanks."""
        values = self._arrays.get(name) or self._single.get(name, "").split(",")
        return [value.strip() for value in values if value.strip()]

    def integer(self, name: str, default: int) -> int:
        """Return an integer."""
        value = self.text(name, str(default))
        if not re.fullmatch(r"-?\d{1,9}", value, re.ASCII):
            raise invalid(name)
        return int(value)

    def moment(self, name: str) -> str:
        """Return a date with or without a time, as ``2026-01-31 12:00``; empty if absent."""
        value = self.text(name)
        try:
            if value:
                datetime.fromisoformat(value if _MOMENT.fullmatch(value) else "")
        except ValueError:
            raise invalid(name) from None
        return value

    @property
    def content(self) -> str:
        """Content type of the operation."""
        return self.text("content")

    @property
    def action(self) -> str:
        """Action; default: import if there is data, export otherwise."""
        return self.text("action", "import" if self.has("data") else "export")

    @property
    def format(self) -> Format:
        """Format of the data sent or returned."""
        return _format(self.choice("format", ("json", "csv", "xml", "odm"), "xml"))

    @property
    def return_format(self) -> Format:
        """Format of errors and short responses; never raises."""
        for name in ("returnFormat", "format"):
            value = self.text(name)
            if value in {"json", "csv", "xml"}:
                return _format(value)
        return "xml"

    @property
    def delimiter(self) -> str:
        """CSV delimiter."""
        word = self._single.get("csvDelimiter", "")
        if word in {"tab", "\t", "TAB"}:
            return "\t"
        return self.choice("csvDelimiter", (",", ";", "|", "^"), ",")


def invalid(name: str) -> ApiError:
    """Return the error for an invalid parameter."""
    return ApiError(f'The value of the parameter "{name}" is not valid')


def _format(word: str) -> Format:
    match word:
        case "json" | "csv" | "odm":
            return word
        case _:
            return "xml"
