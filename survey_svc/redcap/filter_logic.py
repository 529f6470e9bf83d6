"""Values in REDCap's filter logic, which has no escape character.

A value is written between quotes that it does not contain, or rejected before the call to REDCap;
callers check the returned rows again.

Source:
    REDCap API 16.1.9, section 2.4.
"""

import re
from collections.abc import Sequence

from mesh.chassis.errors import InvalidRequestError, MeshError, Violation

SAFE = re.compile(r"[A-Za-z0-9._+@-]{1,254}")
MAX_LENGTH = 254
# A backslash is not an escape character but confuses some versions; brackets name fields.
_UNQUOTABLE = re.compile(r"[\\\[\]]")
_NEVER_STORED = re.compile(r"[\s\"\x00-\x1f\x7f]")


class UnsafeValueError(MeshError):
    """A value has characters that are not allowed in filter logic."""

    def __init__(self, variable: str) -> None:
        super().__init__(f"A value for {variable!r} has characters that are not allowed in ids.")


def is_one_of(variable: str, values: Sequence[str]) -> str:
    """Return logic that matches records where *variable* is one of *values*.

    Raises:
        UnsafeValueError: A value has other characters than letters, digits and ``._+@-``.
    """
    if not all(SAFE.fullmatch(value) for value in values):
        raise UnsafeValueError(variable)
    return " or ".join(f"[{variable}] = '{value}'" for value in values)


def is_email(variable: str, email: str) -> str:
    """Return logic that matches records where *variable* is *email*, case-insensitively.

    Returns:
        The logic; empty if REDCap cannot store *email* as an address: without ``@``, or with
        white space, double quotes or control characters.

    Raises:
        InvalidRequestError: The address cannot be written in filter logic.
    """
    address = email.lower()
    if "@" not in address or _NEVER_STORED.search(address):
        return ""
    if len(address) > MAX_LENGTH or not address.isprintable() or _UNQUOTABLE.search(address):
        raise InvalidRequestError(
            "REDCap cannot search for this address.",
            violations=[
                Violation("email", "must not contain backslashes or square brackets", "searchable")
            ],
        )
    quote = '"' if "'" in address else "'"
    return f"lower([{variable}]) = {quote}{address}{quote}"
