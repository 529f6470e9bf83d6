"""Records as an ODM document."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import groupby
from typing import Any
from xml.sax.saxutils import quoteattr

from sandbox.redcap import VERSION
from sandbox.redcap.api.formats import XML_HEAD
from sandbox.redcap.design.project import Project

_NAMESPACES = (
    'xmlns="http://www.cdisc.org/ns/odm/v1.3" xmlns:redcap="https://projectredcap.org" '
    'ODMVersion="1.3.1" FileType="Snapshot" SourceSystem="REDCap"'
)


def write(project: Project, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield an ODM document with *rows* of a flat export, record by record.

    The rows must include the record id; blank cells are omitted.
    """
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    title = quoteattr(project.title)
    yield (
        f"{XML_HEAD}\n<ODM {_NAMESPACES} SourceSystemVersion={quoteattr(VERSION)} "
        f'FileOID="000-00-0000" Description={title} AsOfDateTime="{now}" CreationDateTime="{now}">'
    )
    oid = quoteattr(f"Project.{project.id}")
    yield f'<ClinicalData StudyOID={oid} MetaDataVersionOID="Metadata.{project.id}">'
    key = project.dictionary.record_id
    for name, group in groupby(rows, key=lambda row: row[key]):
        yield f"<SubjectData SubjectKey={quoteattr(name)} redcap:RecordIdField={quoteattr(key)}>"
        for row in group:
            yield from _visit(project, row)
        yield "</SubjectData>"
    yield "</ClinicalData></ODM>"


def _visit(project: Project, row: Mapping[str, Any]) -> Iterator[str]:
    event = row.get("redcap_event_name", "")
    repeated = row.get("redcap_repeat_instrument", "")
    instance = str(row.get("redcap_repeat_instance", "") or "1")
    if event:
        number = "1" if repeated else instance
        yield (
            f"<StudyEventData StudyEventOID={quoteattr('Event.' + event)} "
            f'StudyEventRepeatKey="{number}" redcap:UniqueEventName={quoteattr(event)}>'
        )
    for form in project.dictionary.forms:
        items = [
            f"<ItemData ItemOID={quoteattr(column)} Value={quoteattr(str(value))}/>"
            for column, value in row.items()
            if value != "" and _form(project, column) == form
        ]
        if items:
            number = instance if repeated == form else "1"
            yield f'<FormData FormOID={quoteattr("Form." + form)} FormRepeatKey="{number}">'
            yield f'<ItemGroupData ItemGroupOID={quoteattr(form)} ItemGroupRepeatKey="1">'
            yield "".join(items)
            yield "</ItemGroupData></FormData>"
    if event:
        yield "</StudyEventData>"


def _form(project: Project, column: str) -> str | None:
    columns = project.dictionary.columns
    if column in columns:
        return columns[column][0].form_name
    return project.dictionary.form_of(column)
