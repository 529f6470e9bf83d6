"""Generated unique names of groups and roles."""

import re
import secrets
import string

_LETTERS = string.ascii_uppercase + string.digits


def unique_group_name(label: str) -> str:
    """Return the label in lower case with underscores: ``New DAG`` becomes ``new_dag``."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")[:18] or "group"


def unique_role_name() -> str:
    """Return a unique role name: ``U-`` and ten characters."""
    return "U-" + "".join(secrets.choice(_LETTERS) for _ in range(10))


def token() -> str:
    """Return a new API token: 32 hexadecimal digits."""
    return secrets.token_hex(16).upper()
