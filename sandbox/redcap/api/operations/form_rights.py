"""Encoding and decoding of the rights of users and roles, per-form rights included."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sandbox.redcap.api.checks import must_exist
from sandbox.redcap.api.operation import Call
from sandbox.redcap.design import rights
from sandbox.redcap.design.project import Project
from sandbox.redcap.errors import ApiError

FORMS = ("forms", "forms_export")
"""The two rights that are granted per form."""


def form_rights(call: Call, stored: object) -> Any:
    """Return a right by form: a mapping, or text pairs in CSV."""
    forms = call.project.dictionary.forms
    held = stored if isinstance(stored, Mapping) else {}
    found = {form: int(held.get(form, 1)) for form in forms}
    if call.params.format == "csv":
        return ",".join(f"{form}:{right}" for form, right in found.items())
    return found


def read_rights(row: Mapping[str, str], project: Project) -> dict[str, Any]:
    """Parse the rights in a row; blanks keep the current value."""
    found: dict[str, Any] = {}
    for name in rights.NAMES:
        text = row.get(name, "").strip()
        if text and not text.isdecimal():
            raise ApiError(f"The right '{name}' must be an integer, not '{text}'.")
        if text:
            found[name] = int(text)
    for key in FORMS:
        if row.get(key):
            found[key] = _readform_rights(row[key], project)
    return found


def _readform_rights(text: str, project: Project) -> dict[str, int]:
    if text.lstrip().startswith("{"):
        pairs: Iterable[tuple[str, Any]] = json.loads(text).items()
    else:
        pairs = [(form, right) for form, _, right in (p.partition(":") for p in text.split(","))]
    found = {form.strip(): str(right).strip() for form, right in pairs}
    must_exist("forms", found, project.dictionary.forms)
    if not all(right.isdecimal() for right in found.values()):
        raise ApiError("Form rights must be integers, as in 'form_1:1,form_2:0'.")
    return {form: int(right) for form, right in found.items()}
