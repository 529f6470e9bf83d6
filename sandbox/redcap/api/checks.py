"""Validation of rows and parameters of design changes."""

from collections.abc import Container, Iterable, Mapping
from typing import Any

from sandbox.redcap.errors import ApiError


def needed(row: Mapping[str, str], key: str) -> str:
    """Return a required value of a row."""
    value = row.get(key, "").strip()
    if not value:
        raise ApiError(f"Every row needs '{key}'.")
    return value


def must_exist(parameter: str, given: Iterable[object], known: Container[object]) -> None:
    """Check that every given name is known.

    Raises:
        ApiError: A name is unknown; the message states it and the parameter.
    """
    unknown = sorted(str(item) for item in given if item not in known)
    if unknown:
        quoted = ", ".join(f"'{name}'" for name in unknown)
        raise ApiError(f'These values of "{parameter}" do not exist in the project: {quoted}')


def assign(
    mapping: dict[str, str], user: str, wanted: str, known: Container[str], what: str
) -> None:
    """Set or, with a blank, remove a user's assignment, in place."""
    wanted = wanted.strip()
    if not wanted:
        mapping.pop(user, None)
    elif wanted in known:
        mapping[user] = wanted
    else:
        raise ApiError(f"The {what} '{wanted}' does not exist in the project.")


def without(mapping: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return *mapping* without some of its keys."""
    gone = set(names)
    return {key: value for key, value in mapping.items() if key not in gone}
