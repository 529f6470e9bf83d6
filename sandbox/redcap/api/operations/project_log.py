"""``content=log``: the audit log of a project."""

from sandbox.redcap.api.operation import Answer, Call, Operation, Operations, rows_answer
from sandbox.redcap.records import audit_log as history

_KINDS = (
    "",
    "export",
    "manage",
    "user",
    "record",
    "record_add",
    "record_edit",
    "record_delete",
    "lock_record",
    "page_view",
)


def export_log(call: Call) -> Answer:
    """List the requested log entries, newest first."""
    params = call.params
    search = history.Search(
        kind=params.choice("logtype", _KINDS, ""),
        user=params.text("user"),
        record=params.text("record"),
        group=params.text("dag"),
        begin=params.moment("beginTime"),
        # The end time is inclusive to the minute.
        end=params.moment("endTime") and params.moment("endTime").ljust(19, "~"),
    )
    columns = ("timestamp", "username", "action", "details", "record")
    with call.store.reading() as db:
        rows = [
            {name: getattr(event, name) for name in columns}
            for event in history.read(db, call.project.id, search)
        ]
    return rows_answer(call, rows, columns=columns)


OPERATIONS: Operations = {("log", "export"): Operation(export_log, "logging", "Logging")}
