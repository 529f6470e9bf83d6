"""Strict JSON parsing: UTF-8 only, no duplicate names, finite numbers."""

import json
from typing import Any, NoReturn


class NotJsonError(ValueError):
    """The bytes are not strict JSON; the message says why."""


def parse(data: bytes) -> Any:
    """Parse *data*.

    Raises:
        NotJsonError: *data* is not UTF-8, not JSON, nested too deeply, has a duplicate name, or
            holds a number or a string that cannot be exchanged as JSON.

    Source:
        RFC 8259, sections 4, 6 and 8; RFC 7493 (I-JSON).
    """
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
        # Encoding it again finds what the parser accepts: lone surrogates, 1e999.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as exc:
        raise NotJsonError("nested too deeply") from exc
    except UnicodeDecodeError as exc:
        raise NotJsonError("not UTF-8") from exc
    except UnicodeEncodeError as exc:
        raise NotJsonError("a string contains a lone surrogate") from exc
    except json.JSONDecodeError as exc:
        raise NotJsonError(f"{exc.msg.lower()} at character {exc.pos}") from exc
    except NotJsonError:
        raise
    except ValueError as exc:
        raise NotJsonError("a number is too large") from exc
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotJsonError("an object has a duplicate name")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise NotJsonError(f"{name} is not a JSON number")
