"""Columns of a flat export: name, label and cell value."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.redcap.design.dictionary import STATUS_OPTIONS, Field, checkbox_column, status_field
from sandbox.redcap.design.project import Project
from sandbox.redcap.design.validation import format_of
from sandbox.redcap.records.export_options import ExportOptions
from sandbox.redcap.records.storage import Answers, Place, Record
from sandbox.redcap.surveys import responses


@dataclass(frozen=True, slots=True)
class Spot:
    """The source of a row: a record, a place in it, its answers, and where else to look."""

    record: Record
    place: Place
    answers: Answers
    db: sqlite3.Connection


Cell = Callable[[Spot], Any]


@dataclass(frozen=True)
class Column:
    """A column; *form* is None if every row has a value for it."""

    name: str
    label: str
    form: str | None
    cell: Cell


def of_export(project: Project, ask: ExportOptions, wanted: Sequence[str]) -> list[Column]:
    """Return the columns of a flat export of the *wanted* fields, in REDCap's order."""
    columns: list[Column] = []
    dictionary = project.dictionary
    if dictionary.record_id in wanted:
        label = dictionary.fields[0].field_label or dictionary.record_id
        columns.append(Column(dictionary.record_id, label, None, lambda spot: spot.record.name))
        columns += _pseudo(project, ask)
    wanted_names = set(wanted)
    for form, fields in dictionary.forms.items():
        names = [field for field in fields if field.field_name in wanted_names]
        status = status_field(form)
        if ask.survey_fields and form in project.surveys and (names or status in wanted_names):
            columns.append(
                Column(f"{form}_timestamp", "Survey Timestamp", form, _timestamp(project, form))
            )
        for field in names:
            if field.field_name != dictionary.record_id:
                columns += _of_field(field, ask, project.missing_data_codes)
        if status in wanted_names:
            columns.append(Column(status, "Complete?", form, _status(status, ask)))
    return columns


def _pseudo(project: Project, ask: ExportOptions) -> list[Column]:
    columns = []
    if project.is_longitudinal:
        columns.append(Column("redcap_event_name", "Event Name", None, _event(project, ask)))
    if project.repeating:
        columns.append(
            Column("redcap_repeat_instrument", "Repeat Instrument", None, _instrument(project, ask))
        )
        columns.append(
            Column(
                "redcap_repeat_instance",
                "Repeat Instance",
                None,
                lambda spot: instance_of(project, spot.place),
            )
        )
    if ask.groups and not ask.group:
        columns.append(
            Column("redcap_data_access_group", "Data Access Group", None, _group(project, ask))
        )
    if ask.survey_fields and project.surveys:
        columns.append(Column("redcap_survey_identifier", "Survey Identifier", None, lambda _: ""))
    return columns


def instance_of(project: Project, place: Place) -> int | str:
    """Return the instance number of a repeating row; blank for any other."""
    event = project.event_by_id[place.event_id]
    return place.instance if place.instrument or project.repeats_event(event) else ""


def options_of(field: Field | None) -> Mapping[str, str]:
    """Return the choice labels of a field; None means a form status field."""
    return STATUS_OPTIONS if field is None else field.options


def _event(project: Project, ask: ExportOptions) -> Cell:
    def cell(spot: Spot) -> str:
        event = project.event_by_id[spot.place.event_id]
        return event.event_name if ask.labels else event.unique_event_name

    return cell


def _instrument(project: Project, ask: ExportOptions) -> Cell:
    def cell(spot: Spot) -> str:
        name = spot.place.instrument
        return project.label(name) if name and ask.labels else name

    return cell


def _group(project: Project, ask: ExportOptions) -> Cell:
    def cell(spot: Spot) -> str:
        name = spot.record.group
        return project.groups[name][1] if ask.labels and name in project.groups else name

    return cell


def _timestamp(project: Project, form: str) -> Cell:
    def cell(spot: Spot) -> str:
        return responses.timestamp(
            spot.db, project.id, spot.record.name, form=form, place=spot.place
        )

    return cell


def _status(name: str, ask: ExportOptions) -> Cell:
    untouched = "" if ask.blank_status else "0"

    def cell(spot: Spot) -> str:
        code = str(spot.answers.get(name) or untouched)
        return STATUS_OPTIONS.get(code, code) if ask.labels else code

    return cell


def _of_field(field: Field, ask: ExportOptions, missing: Mapping[str, str]) -> list[Column]:
    name, form, label = field.field_name, field.form_name, field.field_label or field.field_name
    if field.is_checkbox and ask.combine_checkboxes:
        return [Column(name, label, form, _combined(field, ask))]
    if field.is_checkbox:
        return [
            Column(
                checkbox_column(name, code),
                f"{label} (choice={choice})",
                form,
                _box(name, code, _box_words(choice, ask)),
            )
            for code, choice in field.options.items()
        ]
    if field.is_file:
        return [Column(name, label, form, lambda spot: _file_name(spot.answers.get(name)))]
    if ask.labels and (field.options or missing):
        options = {**missing, **field.options}
        return [Column(name, label, form, lambda s: _labelled(options, s.answers.get(name, "")))]
    if ask.decimal_comma and _is_number(field):
        return [Column(name, label, form, lambda s: str(s.answers.get(name, "")).replace(".", ","))]
    return [Column(name, label, form, lambda spot: spot.answers.get(name, ""))]


def _box_words(choice: str, ask: ExportOptions) -> tuple[str, str]:
    """Return the values of an unchecked and a checked box."""
    if not ask.labels:
        return "0", "1"
    return ("", choice) if ask.checkbox_labels else ("Unchecked", "Checked")


def _box(name: str, code: str, words: tuple[str, str]) -> Cell:
    def cell(spot: Spot) -> str:
        return words[code in spot.answers.get(name, ())]

    return cell


def _combined(field: Field, ask: ExportOptions) -> Cell:
    def cell(spot: Spot) -> str:
        codes = spot.answers.get(field.field_name, ())
        return ",".join(field.options.get(c, c) if ask.labels else c for c in codes)

    return cell


def _labelled(options: Mapping[str, str], answer: object) -> str:
    code = str(answer)
    return options.get(code, code)


def _file_name(answer: object) -> str:
    return str(answer["name"]) if isinstance(answer, dict) else ""


def _is_number(field: Field) -> bool:
    return field.is_calculated or format_of(field.validation).kind.startswith("number")
