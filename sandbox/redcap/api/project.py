"""
``version``, ``project``, ``project_settings``.
"""

import re

from sandbox.redcap import VERSION, history, settings, store
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
from sandbox.redcap.errors import ApiError, ForbiddenError, UnsupportedError
from sandbox.redcap.store import Store


def version(call: Call) -> Answer:
    """The version imitated."""
    return plain(VERSION)


def export_project(call: Call) -> Answer:
    """The project's settings: one object, not a list of one."""
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
    """Change settings; the answer is how many were accepted."""
    data = call.params.text("data")
    if call.params.format == "json" and data.lstrip().startswith("{"):
        data = f"[{data}]"
    rows = read_rows(data, call.params.format, delimiter=call.params.delimiter)
    given = {name: text for row in rows for name, text in row.items()}
    unknown = [n for n in given if n not in settings.DEFAULTS and n != "project_id"]
    if unknown:
        raise ApiError(f"These are no project settings: {', '.join(unknown)}")
    changed = {
        name: settings.parse(name, text)
        for name, text in given.items()
        if name in settings.DEFAULTS and name not in settings.READ_ONLY
    }
    with call.store.writing() as db:
        project = call.store.project(db, call.project.id)
        store.save_project(db, project.with_settings(**changed))
        history.add(
            db,
            project.id,
            call.username,
            kind="manage",
            action=history.DESIGN,
            details="Modify project settings",
        )
    return count_answer(call, len(changed))


_SUPER_TOKEN = re.compile(r"[0-9A-Fa-f]{64}")


def is_creation(params: Params) -> bool:
    """Whether the call makes a new project, which only a super token may."""
    return params.content == "project" and params.action == "import"


def create(params: Params, store_: Store) -> Answer:
    """Make a project, from its XML where that is sent; the answer is its token."""
    token = params.text("token")
    with store_.reading() as db:
        found = _SUPER_TOKEN.fullmatch(token) and store.find_token(db, token.upper())
    if not found:
        raise ForbiddenError("You do not have permissions to use the API")
    raise UnsupportedError


OPERATIONS: Operations = {
    ("version", "export"): Operation(version),
    ("project", "export"): with_right(EXPORT, export_project),
    ("project_settings", "import"): Operation(import_settings, "design", "Project Setup"),
}
