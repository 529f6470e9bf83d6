"""JSON without the leniences of ``json``: one encoding, no duplicate names, finite numbers."""

import json
from typing import Any, NoReturn


class NotJsonError(ValueError):
    """The bytes are not strict JSON; the message says what was found."""


def parse(data: bytes) -> Any:
    """
    Parse *data*.

    Raises:
        NotJsonError: It is not UTF-8, not JSON, nested too deep, names something twice, or holds
            a number or a text that JSON cannot carry to others.

    Source:
        RFC 8259, sections 4, 6 and 8; RFC 7493 (I-JSON).
    """
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
        # Writing it back finds what reading lets through: lone surrogates, 1e999.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as exc:
        raise NotJsonError("nested too deep") from exc
    except UnicodeDecodeError as exc:
        raise NotJsonError("not UTF-8") from exc
    except UnicodeEncodeError as exc:
        raise NotJsonError("a text holds half of a surrogate pair") from exc
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
        raise NotJsonError("a name appears twice in an object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise NotJsonError(f"{name} is no JSON number")
