"""Values in REDCap's filter logic, which has no escape character.

Only allow-listed values are written into logic; whoever gets the rows checks them again.
"""

import re
from collections.abc import Sequence

from mesh.chassis.errors import MeshError

SAFE = re.compile(r"[A-Za-z0-9._+@-]{1,254}")
_SAFE_END = re.compile(r"[A-Za-z0-9._+@-]+$")
_NEVER_STORED = re.compile(r"[\s\"\x00-\x1f\x7f]")


class UnsafeValueError(MeshError):
    """A value holds characters that must not get into filter logic."""

    def __init__(self, variable: str) -> None:
        super().__init__(f"A value for {variable!r} has characters that no id of ours has.")


def is_one_of(variable: str, values: Sequence[str]) -> str:
    """Return logic that holds for records where *variable* is one of *values*.

    Raises:
        UnsafeValueError: A value has other characters than letters, digits and ``._+@-``.
    """
    if not all(SAFE.fullmatch(value) for value in values):
        raise UnsafeValueError(variable)
    return " or ".join(f"[{variable}] = '{value}'" for value in values)


def may_be_email(variable: str, email: str) -> str:
    """Return logic that holds for records where *variable* is *email*, and perhaps for some more.

    Case does not matter. Of an address with other characters than the allow-listed ones, say an
    apostrophe, only the part behind the last of them is written: it holds the domain.

    Returns:
        The logic; empty for what REDCap cannot hold as an address: without ``@``, with white
        space, double quotes or control characters, or ending in an unsafe character.
    """
    if "@" not in email or _NEVER_STORED.search(email):
        return ""
    address = email.lower()
    if SAFE.fullmatch(address):
        return f"lower([{variable}]) = '{address}'"
    end = _SAFE_END.search(address)
    return f"ends_with(lower([{variable}]), '{end[0]}')" if end else ""
