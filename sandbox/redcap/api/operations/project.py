"""``version``, ``project``, ``project_settings``."""

import re
from typing import Any

from sandbox.redcap import VERSION, store
from sandbox.redcap.api.changes import change
from sandbox.redcap.api.formats import MEDIA_TYPES, dump_json, read_rows
from sandbox.redcap.api.operation import (
    EXPORT,
    Answer,
    Call,
    Operation,
    Operations,
    count_answer,
    plain,
    rows_answer,
    with_right,
)
from sandbox.redcap.api.params import Params
from sandbox.redcap.design import names, rights, settings
from sandbox.redcap.design.dictionary import Dictionary, Field
from sandbox.redcap.design.project import Project
from sandbox.redcap.errors import ApiError, ForbiddenError
from sandbox.redcap.odm import design, elements
from sandbox.redcap.odm import records as answers
from sandbox.redcap.records import audit_log as history
from sandbox.redcap.store import Store


def version(call: Call) -> Answer:
    """Return the version that the server reproduces."""
    return plain(VERSION)


def export_project(call: Call) -> Answer:
    """Return the project's settings: a single object, not a list."""
    project = call.project
    facts = {
        "project_id": project.id,
        **settings.DEFAULTS,
        **project.settings,
        "has_repeating_instruments_or_events": int(bool(project.repeating)),
    }
    facts = {name: facts[name] for name in ("project_id", *settings.DEFAULTS)}
    if call.params.format == "json":
        return Answer(dump_json(facts).encode(), MEDIA_TYPES["json"])
    return rows_answer(call, [facts], columns=tuple(facts), root="items")


def import_settings(call: Call) -> Answer:
    """Change settings; return how many were accepted."""
    data = call.params.text("data")
    if call.params.format == "json" and data.lstrip().startswith("{"):
        data = f"[{data}]"
    rows = read_rows(data, call.params.format, delimiter=call.params.delimiter)
    given = {name: text for row in rows for name, text in row.items()}
    unknown = [n for n in given if n not in settings.DEFAULTS and n != "project_id"]
    if unknown:
        raise ApiError(f"These project settings do not exist: {', '.join(unknown)}")
    changed = {
        name: settings.parse(name, text)
        for name, text in given.items()
        if name in settings.DEFAULTS and name not in settings.READ_ONLY
    }
    change(call, lambda p: p.with_settings(**changed), details="Modify project settings")
    return count_answer(call, len(changed))


_SUPER_TOKEN = re.compile(r"[0-9A-Fa-f]{64}")


def is_creation(params: Params) -> bool:
    """Return whether the call creates a project, which requires a super token."""
    return params.content == "project" and params.action == "import"


def create(params: Params, store_: Store) -> Answer:
    """Create a project, from project XML if sent; return its token."""
    token = params.text("token")
    with store_.reading() as db:
        found = _SUPER_TOKEN.fullmatch(token) and store.find_token(db, token.upper())
    if not found:
        raise ForbiddenError("You do not have permissions to use the API")
    given = _creation_settings(params)
    root = elements.parse(params.text("odm")) if params.text("odm") else None
    design_ = design.read(root) if root is not None else _blank_project()
    settings_ = {**design_.settings, **given}
    if root is not None:
        # The XML, not the default, determines whether the project is longitudinal.
        settings_["is_longitudinal"] = design_.settings["is_longitudinal"]
    username = found[1]
    design_ = design_.replaced(settings=settings_, users={username: rights.CREATOR})
    new_token = names.token()
    with store_.writing() as db:
        number = store.add_project(db, design_)
        store.add_token(db, new_token, number, username)
        # Not through the store: it would cache a project that may still be rolled back.
        project = design_.replaced(id=number)
        history.add(
            db,
            number,
            username,
            kind="manage",
            action=history.DESIGN,
            details="Create project using API",
        )
        for subject in answers.read(root, project) if root is not None else ():
            answers.store(db, project, subject)
    return plain(new_token)


def _creation_settings(params: Params) -> dict[str, Any]:
    data = params.text("data")
    if params.format == "json" and data.lstrip().startswith("{"):
        data = f"[{data}]"
    rows = read_rows(data, params.format, delimiter=params.delimiter)
    given = {key: text for key, text in rows[0].items() if text} if rows else {}
    missing = [name for name in ("project_title", "purpose") if name not in given]
    if missing:
        raise ApiError(f"A new project needs: {', '.join(missing)}")
    if given["purpose"] not in {"0", "1", "2", "3", "4"}:
        raise ApiError("The purpose of a project must be a number from 0 to 4.")
    unknown = [name for name in given if name not in _CREATION]
    if unknown:
        raise ApiError(f"A new project does not accept these settings: {', '.join(unknown)}")
    return {name: settings.parse(name, text) for name, text in given.items()}


_CREATION = (
    "project_title",
    "purpose",
    "purpose_other",
    "project_notes",
    "is_longitudinal",
    "surveys_enabled",
    "record_autonumbering_enabled",
)


def _blank_project() -> Project:
    """Return the dictionary of a new project: only the record id."""
    only = Field("record_id", "form_1", field_label="Record ID")
    return Project(id=0, dictionary=Dictionary([only]), settings=settings.project_settings())


OPERATIONS: Operations = {
    ("version", "export"): Operation(version),
    ("project", "export"): with_right(EXPORT, export_project),
    ("project_settings", "import"): Operation(import_settings, "design", "Project Setup"),
}
