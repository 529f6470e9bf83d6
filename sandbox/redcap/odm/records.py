"""Records from the clinical data of an ODM document."""

import base64
import binascii
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from sandbox.redcap.design.dictionary import Dictionary
from sandbox.redcap.design.project import Project
from sandbox.redcap.errors import ApiError
from sandbox.redcap.odm.elements import attribute, each, local
from sandbox.redcap.records import documents
from sandbox.redcap.records import storage as records
from sandbox.redcap.records.storage import Answers, Place


@dataclass
class Subject:
    """One record of the document."""

    name: str
    values: dict[Place, dict[str, str]] = field(default_factory=dict)
    """Answers as text, by place and export column."""
    files: dict[tuple[Place, str], tuple[str, str, bytes]] = field(default_factory=dict)
    """Name, media type and content of the documents, by place and field."""


def read(root: Element, project: Project) -> Iterator[Subject]:
    """Yield the records of a document.

    Raises:
        ApiError: It refers to an unknown event, or a document is not valid
            base64.
    """
    for element in each(root, "SubjectData"):
        subject = Subject(attribute(element, "SubjectKey").strip())
        visits = list(each(element, "StudyEventData")) or [element]
        for visit in visits:
            for form in each(visit, "FormData"):
                place = _place(project, visit, form)
                values = subject.values.setdefault(place, {})
                for item in form.iter():
                    _item(item, subject, place, values)
        yield subject


def store(db: sqlite3.Connection, project: Project, subject: Subject) -> None:
    """Store a record of project XML without validation; skip calculated values."""
    records.create(db, project.id, subject.name)
    group = ""
    for place, values in subject.values.items():
        answers = records.read_entry(db, project.id, subject.name, place) or {}
        group = values.pop("redcap_data_access_group", group)
        _answers(project.dictionary, values, answers)
        for (at, name), (title, mime, content) in subject.files.items():
            if at == place and name in project.dictionary.by_name:
                number = documents.add(db, project.id, name=title, mime=mime, content=content)
                answers[name] = {"doc": number, "name": title}
        records.write_entry(db, project.id, subject.name, place, answers)
    if not subject.values:
        place = Place(project.default_event().event_id)
        records.write_entry(db, project.id, subject.name, place, {})
    if group:
        records.set_group(db, project.id, subject.name, group)


def rows(root: Element, project: Project) -> list[dict[str, str]]:
    """Return the records of a document as flat rows, for an ordinary import."""
    found = []
    for subject in read(root, project):
        for place, values in subject.values.items():
            row = {project.dictionary.record_id: subject.name}
            event = project.event_by_id[place.event_id]
            if project.is_longitudinal:
                row["redcap_event_name"] = event.unique_event_name
            if place.instrument or project.repeats_event(event):
                row["redcap_repeat_instrument"] = place.instrument
                row["redcap_repeat_instance"] = str(place.instance)
            found.append({**values, **row})
    return found


def _answers(dictionary: Dictionary, values: dict[str, str], answers: Answers) -> None:
    for column, text in values.items():
        if text == "" or column == dictionary.record_id:
            continue
        if column in dictionary.form_of_status:
            answers[column] = text
        elif column in dictionary.columns:
            asked, code = dictionary.columns[column]
            if asked.is_calculated or asked.is_file:
                continue
            if code is None:
                answers[asked.field_name] = text
            elif text == "1":
                ticked = {*answers.get(asked.field_name, ()), code}
                answers[asked.field_name] = [c for c in asked.options if c in ticked]


def _place(project: Project, visit: Element, form: Element) -> Place:
    name = attribute(visit, "UniqueEventName") or attribute(visit, "StudyEventOID")[6:]
    event = project.event_by_name.get(name) if name else project.default_event()
    if event is None:
        raise ApiError(f"The event '{name}' of the XML data does not exist in the project.")
    form_name = attribute(form, "FormOID").removeprefix("Form.")
    if project.repeats_form(event, form_name):
        return Place(event.event_id, form_name, _key(form, "FormRepeatKey"))
    if project.repeats_event(event):
        return Place(event.event_id, "", _key(visit, "StudyEventRepeatKey"))
    return Place(event.event_id)


def _key(element: Element, name: str) -> int:
    text = attribute(element, name, "1")
    return int(text) if text.isdecimal() and int(text) else 1


def _item(item: Element, subject: Subject, place: Place, values: dict[str, str]) -> None:
    column = attribute(item, "ItemOID")
    match local(str(item.tag)):
        case "ItemData":
            values[column] = attribute(item, "Value") or (item.text or "").strip()
        case "ItemDataBase64Binary":
            try:
                content = base64.b64decode(item.text or "", validate=False)
            except binascii.Error as exc:
                raise ApiError(f"The document of '{column}' is not valid base64.") from exc
            title = attribute(item, "DocName") or column
            mime = attribute(item, "MimeType")
            subject.files[place, column] = (title, mime, content)
