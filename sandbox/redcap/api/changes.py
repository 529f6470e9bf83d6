"""Changes to a project's design, with a log entry."""

from collections.abc import Callable

from sandbox.redcap import store
from sandbox.redcap.api.formats import read_rows
from sandbox.redcap.api.operation import Call
from sandbox.redcap.design.project import Project
from sandbox.redcap.records import audit_log as history
from sandbox.redcap.records import storage as records


def change(call: Call, edit: Callable[[Project], Project], *, details: str) -> Project:
    """Replace the design by the result of *edit*.

    The design is read inside the write transaction, so that concurrent changes
    never overwrite each other.
    """
    with call.store.writing() as db:
        before = call.store.project(db, call.project.id)
        edited = edit(before)
        store.save_project(db, edited)
        for event_id in before.event_by_id.keys() - edited.event_by_id.keys():
            # Another event may get this number, and must start empty.
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
    """Return the rows of the ``data`` parameter."""
    params = call.params
    return read_rows(params.text("data"), params.format, delimiter=params.delimiter)
