"""``content=file``: answers to file fields; and ``content=pdf``."""

import sqlite3

from sandbox.redcap.api.formats import MEDIA_TYPES
from sandbox.redcap.api.operation import EXPORT, IMPORT, Answer, Call, Operations, with_right
from sandbox.redcap.design.dictionary import Field
from sandbox.redcap.design.project import Event
from sandbox.redcap.errors import ApiError
from sandbox.redcap.records import documents
from sandbox.redcap.records import storage as records
from sandbox.redcap.records.documents import Document
from sandbox.redcap.records.storage import Place, Record


def file_answer(document: Document) -> Answer:
    """Return a document; its name is part of the content type, as in REDCap."""
    name = "".join(c for c in document.name if c not in '";=\r\n').encode("latin-1", "replace")
    return Answer(
        document.content, f'{document.mime}; name="{name.decode("latin-1")}";charset=UTF-8'
    )


def export_file(call: Call) -> Answer:
    """Return the document that answers a file field."""
    field, place, record = _target(call)
    with call.store.reading() as db:
        answers = records.read_entry(db, call.project.id, record, place) or {}
        answer = answers.get(field.field_name)
        number = int(answer["doc"]) if isinstance(answer, dict) else 0
        document = documents.get(db, call.project.id, number)
    if document is None:
        raise ApiError("There is no file to download for this record")
    return file_answer(document)


def import_file(call: Call) -> Answer:
    """Store the uploaded document as the answer to a file field."""
    field, place, record = _target(call)
    upload = call.params.upload
    if upload is None:
        raise ApiError("No valid file was uploaded")
    if len(upload.content) > documents.MAX_BYTES:
        raise ApiError(f"The file is larger than {documents.MAX_BYTES // 2**20} MB.")
    with call.store.writing() as db:
        _check_record(db, call, record)
        number = documents.add(
            db, call.project.id, name=upload.name, mime=upload.mime, content=upload.content
        )
        answers = records.read_entry(db, call.project.id, record, place) or {}
        _forget(db, call.project.id, answers.get(field.field_name))
        answers[field.field_name] = {"doc": number, "name": upload.name}
        records.write_entry(db, call.project.id, record, place, answers)
    return Answer(b"", MEDIA_TYPES[call.params.return_format])


def delete_file(call: Call) -> Answer:
    """Delete the document of a file field."""
    field, place, record = _target(call)
    with call.store.writing() as db:
        _check_record(db, call, record)
        answers = records.read_entry(db, call.project.id, record, place) or {}
        if field.field_name not in answers:
            raise ApiError("There is no file to delete for this record")
        _forget(db, call.project.id, answers.pop(field.field_name))
        records.write_entry(db, call.project.id, record, place, answers)
    return Answer(b"", MEDIA_TYPES[call.params.return_format])


def _forget(db: sqlite3.Connection, project_id: int, answer: object) -> None:
    if isinstance(answer, dict):
        documents.delete(db, project_id, int(answer["doc"]))


def _target(call: Call) -> tuple[Field, Place, str]:
    params, project = call.params, call.project
    record, name = params.needed("record"), params.needed("field")
    field = project.dictionary.by_name.get(name)
    if field is None or not field.is_file:
        raise ApiError(f"The field '{name}' does not exist or is not a 'file' field")
    event = _event(call)
    with call.store.reading() as db:
        _check_record(db, call, record)
    instance = params.integer("repeat_instance", 1)
    if project.repeats_form(event, field.form_name):
        return field, Place(event.event_id, field.form_name, instance), record
    return field, Place(event.event_id, "", instance if project.repeats_event(event) else 1), record


def _event(call: Call) -> Event:
    if not call.project.is_longitudinal:
        return call.project.default_event()
    event = call.project.event_by_name.get(call.params.needed("event"))
    if event is None:
        raise ApiError('The value of the parameter "event" is not an event of the project.')
    return event


def _check_record(db: sqlite3.Connection, call: Call, record: str) -> None:
    if not records.exists(db, call.project.id, record):
        raise ApiError(f'The record "{record}" does not exist')


def export_pdf(call: Call) -> Answer:
    """Return instruments as PDF: of one record, of all records, or blank."""
    # Importing the PDF library takes half of the start-up time and is rarely needed.
    from sandbox.redcap.surveys import pdf

    params, project = call.params, call.project
    form, name = params.text("instrument"), params.text("record")
    if form and form not in project.dictionary.forms:
        raise ApiError(f"The instrument '{form}' does not exist in the project.")
    event = None
    if params.text("event"):
        event = _event(call)
    forms = [form] if form else list(project.dictionary.forms)
    with call.store.reading() as db:
        found: list[Record] = []
        if params.flag("allRecords"):
            found = list(records.stream(db, project.id))
        elif name:
            record = records.find(db, project.id, name)
            if record is None:
                raise ApiError(f'The record "{name}" does not exist')
            found = [record]
    body = pdf.render(
        project,
        forms,
        found,
        event=event,
        instance=params.integer("repeat_instance", 0),
        compact=params.flag("compactDisplay"),
    )
    return Answer(body, "application/pdf", headers={"Content-Disposition": "attachment"})


OPERATIONS: Operations = {
    ("file", "export"): with_right(EXPORT, export_file),
    ("file", "import"): with_right(IMPORT, import_file),
    ("file", "delete"): with_right(IMPORT, delete_file),
    ("pdf", "export"): with_right(EXPORT, export_pdf),
}
