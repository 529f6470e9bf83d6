"""``content=record``: export, import, delete and rename records; and the next record name."""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import replace

from sandbox.redcap.api.formats import (
    MEDIA_TYPES,
    XML_HEAD,
    cdata,
    dump_json,
    read_rows,
    write_rows,
)
from sandbox.redcap.api.operation import (
    EXPORT,
    IMPORT,
    Answer,
    Call,
    Operation,
    Operations,
    count_answer,
    plain,
    with_right,
)
from sandbox.redcap.errors import ApiError
from sandbox.redcap.odm import elements
from sandbox.redcap.odm import export as writing
from sandbox.redcap.odm import records as answers
from sandbox.redcap.records import audit_log as history
from sandbox.redcap.records import exporting as export
from sandbox.redcap.records import importing
from sandbox.redcap.records import storage as records
from sandbox.redcap.records.deleting import Part
from sandbox.redcap.records.export_options import ExportOptions
from sandbox.redcap.records.importing import Imported


def export_records(call: Call) -> Answer:
    """Export records; rows are read while they are sent."""
    params = call.params
    shape = params.format
    kind = params.choice("type", ("flat", "eav"), "flat")
    plan = export.Export(call.project, _ask(call))
    if plan.required and not call.store.index_answers(plan.required.field):
        plan.required = None
    delimiter = params.delimiter
    # An export needs no space; only its line in the history is missing while the disk is full.
    with contextlib.suppress(sqlite3.OperationalError), call.store.writing() as log:
        history.add(log, call.project.id, call.username, kind="export", action="Data export (API)")
    if shape == "odm":
        whole = export.Export(call.project, _for_odm(call))
        whole.required = plan.required
        return Answer(_odm_pieces(call, whole), MEDIA_TYPES[shape])

    def pieces() -> Iterator[bytes]:
        with call.store.reading() as db:
            columns = plan.eav_columns if kind == "eav" else [c.name for c in plan.columns]
            headers = None if kind == "eav" else plan.headers
            rows = plan.eav(db) if kind == "eav" else plan.flat(db)
            for piece in write_rows(
                rows, shape, columns=columns, headers=headers, delimiter=delimiter
            ):
                yield piece.encode()

    return Answer(pieces(), MEDIA_TYPES[shape])


def _odm_pieces(call: Call, plan: export.Export) -> Iterator[bytes]:
    with call.store.reading() as db:
        for piece in writing.write(call.project, plan.flat(db)):
            yield piece.encode()


def _for_odm(call: Call) -> ExportOptions:
    """Return export options for ODM: with the record id, and codes rather than labels."""
    ask = _ask(call)
    key = call.project.dictionary.record_id
    narrowed = bool(ask.fields or ask.forms)
    return replace(ask, labels=False, fields=(*ask.fields, key) if narrowed else ())


def _ask(call: Call) -> ExportOptions:
    params = call.params
    kind = params.choice("type", ("flat", "eav"), "flat")
    label = params.choice("rawOrLabel", ("raw", "label", "both"), "raw") != "raw"
    headers = params.choice("rawOrLabelHeaders", ("raw", "label"), "raw")
    return ExportOptions(
        records=tuple(params.items("records")),
        fields=tuple(params.items("fields")),
        forms=tuple(params.items("forms")),
        events=tuple(params.items("events")),
        logic=params.text("filterLogic"),
        since=params.moment("dateRangeBegin"),
        until=params.moment("dateRangeEnd"),
        labels=label,
        label_headers=headers == "label" and params.format == "csv" and kind == "flat",
        checkbox_labels=params.flag("exportCheckboxLabel"),
        survey_fields=params.flag("exportSurveyFields"),
        groups=params.flag("exportDataAccessGroups"),
        decimal_comma=params.choice("decimalCharacter", (",", ".", "comma", "dot"), ".")
        in {",", "comma"},
        blank_status=params.flag("exportBlankForGrayFormStatus"),
        combine_checkboxes=params.flag("combineCheckboxOptions"),
        username=call.username,
        group=call.project.group_of.get(call.username, ""),
    )


def import_records(call: Call) -> Answer:
    """Import a batch; return what was stored."""
    params = call.params
    content = params.choice("returnContent", ("count", "ids", "auto_ids", "nothing"), "count")
    options = importing.Options(
        overwrite=params.choice("overwriteBehavior", ("normal", "overwrite"), "normal")
        == "overwrite",
        auto_number=params.flag("forceAutoNumber"),
        date_order=params.choice("dateFormat", ("YMD", "MDY", "DMY"), "YMD").lower(),
        group=call.project.group_of.get(call.username, ""),
    )
    if content == "auto_ids" and not options.auto_number:
        raise ApiError("returnContent 'auto_ids' requires forceAutoNumber.")
    kind = params.choice("type", ("flat", "eav"), "flat")
    if params.format == "odm":
        rows = answers.rows(elements.parse(params.text("data")), call.project)
    else:
        rows = read_rows(params.text("data"), params.format, delimiter=params.delimiter)
    if kind == "eav" and params.format != "odm":
        rows = importing.from_eav(rows, call.project)
    with call.store.writing() as db:
        done = importing.store(db, call.project, rows, options)
        for name in done.names:
            created = name in done.created
            history.add(
                db,
                call.project.id,
                call.username,
                kind="record_add" if created else "record_edit",
                action=f"{'Create' if created else 'Update'} record (API) {name}",
                record=name,
            )
    if params.flag("backgroundProcess"):
        return Answer(b'{"success":true}', MEDIA_TYPES["json"])
    return _imported(call, done, content)


def _imported(call: Call, done: Imported, content: str) -> Answer:
    shape = call.params.return_format
    media = MEDIA_TYPES[shape]
    names = (
        [f"{n},{given}" for n, given in done.names.items()]
        if content == "auto_ids"
        else list(done.names)
    )
    if content == "nothing":
        return Answer(b"{}" if shape == "json" else b"", media)
    if content == "count":
        bodies = {
            "json": dump_json({"count": len(names)}),
            "csv": str(len(names)),
            "xml": f"{XML_HEAD}<count>{len(names)}</count>",
        }
    else:
        bodies = {
            "json": dump_json(names),
            "csv": "".join(write_rows([{"id": n} for n in names], "csv", columns=["id"])),
            "xml": f"{XML_HEAD}<ids>{''.join(f'<id>{cdata(n)}</id>' for n in names)}</ids>",
        }
    return Answer(bodies[shape].encode(), media)


def delete_records(call: Call) -> Answer:
    """Delete records, or one form, event or instance of them."""
    params = call.params
    if not params.is_array("records"):
        raise ApiError(
            "Incorrect format for 'records' parameter. It must be passed as an array, "
            "even if it only contains a single record name."
        )
    names = list(dict.fromkeys(params.items("records")))
    with call.store.writing() as db:
        known = records.existing(db, call.project.id, names)
        missing = [name for name in names if name not in known]
        if missing:
            raise ApiError(
                "One or more of the records provided cannot be deleted because they do not exist "
                f"in the project. The following records do not exist: {', '.join(missing)}"
            )
        part = _part(call)
        for name in names:
            if part is None:
                records.delete(db, call.project.id, name)
            else:
                part.delete(db, call.project, name)
            history.add(
                db,
                call.project.id,
                call.username,
                kind="record_delete",
                action=f"Delete record (API) {name}",
                record=name,
            )
    return count_answer(call, len(names))


def _part(call: Call) -> Part | None:
    params, project = call.params, call.project
    event_name, form = params.text("event"), params.text("instrument")
    if form and form not in project.dictionary.forms:
        raise ApiError(f"The instrument '{form}' does not exist in the project.")
    if event_name and event_name not in project.event_by_name:
        raise ApiError(f"The event '{event_name}' does not exist in the project.")
    if form and project.is_longitudinal and not event_name:
        raise ApiError("Deleting an instrument of a longitudinal project requires the event.")
    arm = params.integer("arm", 0)
    if arm and arm not in {known.arm_num for known in project.arms}:
        raise ApiError(f"The arm {arm} does not exist in the project.")
    if not form and not event_name and not arm:
        return None
    events = frozenset(
        event.event_id
        for event in project.events
        if event_name in {"", event.unique_event_name} and arm in {0, event.arm_num}
    )
    instance = params.integer("repeat_instance", 1) if params.text("repeat_instance") else None
    return Part(events, form, instance)


def rename_record(call: Call) -> Answer:
    """Rename a record."""
    old, new = call.params.needed("record"), call.params.needed("new_record_name").strip()
    importing.check_name(new)
    with call.store.writing() as db:
        if not records.exists(db, call.project.id, old):
            raise ApiError(f'The record "{old}" does not exist')
        if records.exists(db, call.project.id, new):
            raise ApiError(f'The record "{new}" already exists')
        records.rename(db, call.project.id, old, new)
        history.add(
            db,
            call.project.id,
            call.username,
            kind="record_edit",
            action=f"Update record (API) {new}",
            details=f"{call.project.dictionary.record_id} = '{new}'",
            record=new,
        )
    return count_answer(call, 1)


def next_name(call: Call) -> Answer:
    """Return the name for the next record, without reserving it."""
    with call.store.reading() as db:
        group = call.project.group_of.get(call.username, "")
        if not group:
            return plain(str(records.next_number(db, call.project.id)))
        number, _ = call.project.groups[group]
        prefix = f"{number}-"
        taken = [
            int(name.removeprefix(prefix))
            for name in records.all_names(db, call.project.id)
            if name.startswith(prefix) and name.removeprefix(prefix).isdecimal()
        ]
    return plain(f"{prefix}{max(taken, default=0) + 1}")


OPERATIONS: Operations = {
    ("record", "export"): with_right(EXPORT, export_records),
    ("record", "import"): with_right(IMPORT, import_records),
    ("record", "delete"): Operation(delete_records, "record_delete", "Delete Record"),
    ("record", "rename"): Operation(rename_record, "record_rename", "Rename Record"),
    ("generateNextRecordName", "export"): with_right(EXPORT, next_name),
}
