"""``content=fileRepository``: folders and documents of a project."""

import sqlite3

from sandbox.redcap.api.formats import MEDIA_TYPES
from sandbox.redcap.api.operation import FILES, Answer, Call, Operations, rows_answer, with_right
from sandbox.redcap.api.operations.files import file_answer
from sandbox.redcap.errors import ApiError
from sandbox.redcap.records import documents
from sandbox.redcap.records.documents import Document


def create_folder(call: Call) -> Answer:
    """Create a folder; return its number."""
    name = call.params.needed("name")
    with call.store.writing() as db:
        parent = _folder(db, call)
        number = documents.add_folder(db, call.project.id, name=name, parent_id=parent)
    return rows_answer(call, [{"folder_id": number}], columns=("folder_id",))


def list_folder(call: Call) -> Answer:
    """List a folder: folders first, then documents."""
    with call.store.reading() as db:
        folder = _folder(db, call)
        folders, files = documents.list_folder(db, call.project.id, folder)
    rows = [{"folder_id": n, "doc_id": "", "name": name} for n, name in folders]
    rows += [{"folder_id": "", "doc_id": n, "name": name} for n, name in files]
    if call.params.format != "csv":
        rows = [{k: v for k, v in row.items() if v != ""} for row in rows]
    columns = ("folder_id", "doc_id", "name")
    return rows_answer(call, rows, columns=columns)


def export_document(call: Call) -> Answer:
    """Return a document's content."""
    with call.store.reading() as db:
        return file_answer(_document(db, call))


def import_document(call: Call) -> Answer:
    """Store the uploaded document."""
    upload = call.params.upload
    if upload is None:
        raise ApiError("No valid file was uploaded")
    if len(upload.content) > documents.MAX_BYTES:
        raise ApiError(f"The file is larger than {documents.MAX_BYTES // 2**20} MB.")
    with call.store.writing() as db:
        documents.add(
            db,
            call.project.id,
            name=upload.name,
            mime=upload.mime,
            content=upload.content,
            folder_id=_folder(db, call),
        )
    return Answer(b"", MEDIA_TYPES[call.params.return_format])


def delete_document(call: Call) -> Answer:
    """Remove a document."""
    with call.store.writing() as db:
        documents.delete(db, call.project.id, _document(db, call).id)
    return Answer(b"", MEDIA_TYPES[call.params.return_format])


def _folder(db: sqlite3.Connection, call: Call) -> int:
    number = call.params.integer("folder_id", 0)
    if number and not documents.folder_exists(db, call.project.id, number):
        raise ApiError(
            f"The File Repository folder folder_id={number} does not exist or else you do not "
            "have permission to that folder because it is DAG-restricted or Role-restricted."
        )
    return number


def _document(db: sqlite3.Connection, call: Call) -> Document:
    call.params.needed("doc_id")
    number = call.params.integer("doc_id", 0)
    found = documents.get(db, call.project.id, number, repository=True)
    if found is None:
        raise ApiError(f"The File Repository file doc_id={number} does not exist.")
    return found


OPERATIONS: Operations = {
    ("fileRepository", "createFolder"): with_right(FILES, create_folder),
    ("fileRepository", "list"): with_right(FILES, list_folder),
    ("fileRepository", "export"): with_right(FILES, export_document),
    ("fileRepository", "import"): with_right(FILES, import_document),
    ("fileRepository", "delete"): with_right(FILES, delete_document),
}
