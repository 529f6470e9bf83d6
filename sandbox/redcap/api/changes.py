"""Changes to a project's design: reload, replace, log."""

from collections.abc import Callable

from sandbox.redcap import store
from sandbox.redcap.api.formats import read_rows
from sandbox.redcap.api.operation import Call
from sandbox.redcap.design.project import Project
from sandbox.redcap.records import audit_log as history
from sandbox.redcap.records import storage as records


def change(call: Call, edit: Callable[[Project], Project], *, details: str) -> Project:
    """Replace the design by the result of *edit*.

    The design is read inside the writer's transaction, so that two changes at
    once never undo one another.
    """
    with call.store.writing() as db:
        before = call.store.project(db, call.project.id)
        edited = edit(before)
        store.save_project(db, edited)
        for event_id in before.event_by_id.keys() - edited.event_by_id.keys():
            # Its number may be given to another event, which must begin empty.
            records.delete_event(db, edited.id, event_id)
        history.add(
            db,
            call.project.id,
            call.username,
            kind="manage",
            action=history.DESIGN,
            details=details,
        )
    return edited


def data_rows(call: Call) -> list[dict[str, str]]:
    """The rows that came as ``data``."""
    params = call.params
    return read_rows(params.text("data"), params.format, delimiter=params.delimiter)
