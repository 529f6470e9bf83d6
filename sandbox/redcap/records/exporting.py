"""Export of records: columns, rows and cell values.

The whole request is validated when the plan is built, so that yielding its
rows cannot fail.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sandbox.redcap.design.dictionary import Field
from sandbox.redcap.design.project import Project
from sandbox.redcap.errors import ApiError
from sandbox.redcap.filter_logic.evaluate import Row, condition
from sandbox.redcap.filter_logic.prefilter import required
from sandbox.redcap.records import columns as layout
from sandbox.redcap.records import storage as records
from sandbox.redcap.records.export_options import ExportOptions
from sandbox.redcap.records.storage import Answers, Place, Record


class Export:
    """A validated plan of an export.

    Raises:
        ApiError: A field, form or event is unknown, or the logic is invalid.
    """

    def __init__(self, project: Project, ask: ExportOptions) -> None:
        self._project = project
        self._ask = ask
        check_names("forms", ask.forms, project.dictionary.forms)
        check_names("events", ask.events, project.event_by_name)
        self._wanted = _wanted(project, ask)
        self._holds = condition(ask.logic, project)
        self.required = required(ask.logic, project)
        """Condition on the records that an index can check."""
        self._events = {project.event_by_name[name].event_id for name in ask.events}
        self.columns = layout.of_export(project, ask, self._wanted)

    @property
    def headers(self) -> Sequence[str]:
        """CSV headers: names, or labels if requested."""
        if self._ask.label_headers:
            return [column.label for column in self.columns]
        return [column.name for column in self.columns]

    def flat(self, db: sqlite3.Connection) -> Iterator[dict[str, Any]]:
        """Yield one row per record, event, repeating instrument and instance."""
        cells: dict[tuple[int, str], list[tuple[str, Callable[[layout.Spot], Any] | None]]] = {}
        for record, place in self._places(db):
            key = (place.event_id, place.instrument)
            if key not in cells:
                cells[key] = self._cells(place)
            if cells[key] == []:
                continue
            spot = layout.Spot(record, place, record.answers(place), db)
            yield {name: cell(spot) if cell else "" for name, cell in cells[key]}

    def eav(self, db: sqlite3.Connection) -> Iterator[dict[str, Any]]:
        """Yield one row per stored answer and per checked choice."""
        for record, place in self._places(db):
            head = self._eav_head(record, place)
            if self._project.dictionary.record_id in self._wanted and not place.instrument:
                yield head | {
                    "field_name": self._project.dictionary.record_id,
                    "value": record.name,
                }
            for name, value in self._stored(record.answers(place)):
                yield head | {"field_name": name, "value": value}

    @property
    def eav_columns(self) -> list[str]:
        """Return the column names of an EAV export."""
        names = ["record"]
        if self._project.is_longitudinal:
            names.append("redcap_event_name")
        if self._project.repeating:
            names += ["redcap_repeat_instrument", "redcap_repeat_instance"]
        return [*names, "field_name", "value"]

    def _places(self, db: sqlite3.Connection) -> Iterator[tuple[Record, Place]]:
        ask, rank = self._ask, self._project.event_rank
        found = records.stream(
            db,
            self._project.id,
            names=ask.records or None,
            since=ask.since,
            until=ask.until,
            holding=self.required,
        )
        for record in found:
            if ask.group and record.group != ask.group:
                continue
            for place in sorted(record.entries, key=lambda p: (rank.get(p.event_id, -1), p[1:])):
                if place.event_id not in rank:
                    continue
                if self._events and place.event_id not in self._events:
                    continue
                if self._holds(Row(record, place, ask.username)):
                    yield record, place

    def _cells(self, place: Place) -> list[tuple[str, Callable[[layout.Spot], Any] | None]]:
        """Return the cells of rows like *place*; empty if it has no requested field."""
        forms = forms_of(self._project, place)
        cells = [
            (c.name, c.cell if c.form is None or c.form in forms else None) for c in self.columns
        ]
        own = [c for c in self.columns if c.form is not None and c.form in forms]
        several = self._project.is_longitudinal or bool(self._project.repeating)
        if several and not own and (self._ask.fields or self._ask.forms):
            only_pseudo = all(column.form is None for column in self.columns)
            return cells if only_pseudo and not place.instrument else []
        return cells

    def _eav_head(self, record: Record, place: Place) -> dict[str, Any]:
        head: dict[str, Any] = {"record": record.name}
        if self._project.is_longitudinal:
            event = self._project.event_by_id[place.event_id]
            head["redcap_event_name"] = (
                event.event_name if self._ask.labels else event.unique_event_name
            )
        if self._project.repeating:
            head["redcap_repeat_instrument"] = place.instrument
            head["redcap_repeat_instance"] = layout.instance_of(self._project, place)
        return head

    def _stored(self, answers: Answers) -> Iterator[tuple[str, str]]:
        by_name = self._project.dictionary.by_name
        for name in self._wanted:
            answer = answers.get(name)
            if not answer or name == self._project.dictionary.record_id:
                continue
            field = by_name.get(name)
            match answer:
                case list():
                    for code in answer:
                        yield name, self._eav_value(field, code)
                case dict():
                    yield name, str(answer["doc"])
                case _:
                    yield name, self._eav_value(field, answer)

    def _eav_value(self, field: Field | None, code: str) -> str:
        if not self._ask.labels:
            return code
        return layout.options_of(field).get(code, code)


def forms_of(project: Project, place: Place) -> frozenset[str]:
    """Return the forms whose answers are stored at *place*."""
    if place.instrument:
        return frozenset({place.instrument})
    event = project.event_by_id[place.event_id]
    return frozenset(f for f in project.forms_at(event) if not project.repeats_form(event, f))


def _wanted(project: Project, ask: ExportOptions) -> list[str]:
    """Return the requested fields and form status fields, in the project's order."""
    dictionary = project.dictionary
    check_names("fields", ask.fields, {*dictionary.by_name, *dictionary.form_of_status})
    everything = not ask.fields and not ask.forms
    asked, forms = set(ask.fields), set(ask.forms)
    wanted = []
    for form, fields in dictionary.forms.items():
        names = [field.field_name for field in fields if field.is_data]
        for name in (*names, f"{form}_complete"):
            if everything or form in forms or name in asked:
                wanted.append(name)
    return wanted


def check_names(parameter: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Check the names in a request.

    Raises:
        ApiError: Some are unknown; REDCap's message lists them.
    """
    known = set(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        quoted = ", ".join(f"'{name}'" for name in unknown)
        raise ApiError(
            f'The following values in the parameter "{parameter}" are not valid: {quoted}'
        )
