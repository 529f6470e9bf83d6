"""Import of records: a batch is stored completely or not at all."""

import re
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sandbox.redcap.design.dictionary import Field
from sandbox.redcap.design.project import Event, Project
from sandbox.redcap.design.validation import (
    BAD_FORMAT,
    fault_of,
    format_of,
    status_fault,
    to_stored,
)
from sandbox.redcap.errors import ApiError
from sandbox.redcap.records import storage as records
from sandbox.redcap.records.calculations import Calculations
from sandbox.redcap.records.exporting import forms_of
from sandbox.redcap.records.storage import Answers, Place

MAX_NAME = 100
"""Maximum length of a record name."""

_PSEUDO = frozenset(
    {
        "redcap_event_name",
        "redcap_repeat_instrument",
        "redcap_repeat_instance",
        "redcap_data_access_group",
        "redcap_survey_identifier",
    }
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Row = Mapping[str, str]


@dataclass(frozen=True)
class Options:
    """Import options of a batch."""

    overwrite: bool = False
    auto_number: bool = False
    date_order: str = "ymd"
    group: str = ""
    """The data access group of the caller, which new records join."""


@dataclass
class Imported:
    """Names of the stored records, with the names used in the batch."""

    names: dict[str, str] = field(default_factory=dict)
    created: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Fault:
    """A value that cannot be stored, with the reason."""

    record: str
    field: str
    value: str
    reason: str

    def __str__(self) -> str:
        cells = (self.record, self.field, self.value, self.reason)
        return ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)


def check_name(name: str) -> None:
    """Check a record's name.

    Raises:
        ApiError: It is too long or contains control characters.
    """
    if not name or len(name) > MAX_NAME or _CONTROL.search(name):
        raise ApiError(
            f"A record name must have 1 to {MAX_NAME} characters, none of them a control character."
        )


def from_eav(rows: Iterable[Row], project: Project) -> list[dict[str, str]]:
    """Convert EAV rows, one answer each, into flat rows.

    A checkbox is either ``field___code`` with 0 or 1 or, as in exports, the
    field with the code.
    """
    key = project.dictionary.record_id
    flat = []
    for row in rows:
        if "record" not in row or "field_name" not in row:
            raise ApiError("Every EAV row requires 'record', 'field_name' and 'value'.")
        name, value = row["field_name"], row.get("value", "")
        asked = project.dictionary.by_name.get(name)
        if asked is not None and asked.is_checkbox:
            if value not in asked.options:
                fault = fault_of(asked, value) or BAD_FORMAT
                raise ApiError(str(Fault(row["record"], name, value, fault)))
            name, value = asked.columns[list(asked.options).index(value)], "1"
        pseudo = {k: v for k, v in row.items() if k in _PSEUDO}
        flat.append({key: row["record"], **pseudo} | ({} if name == key else {name: value}))
    return flat


def store(
    db: sqlite3.Connection, project: Project, rows: list[dict[str, str]], options: Options
) -> Imported:
    """Validate flat rows and store them, within the caller's transaction.

    Raises:
        ApiError: Columns are unknown or values invalid; the message has one line per value.
    """
    _check_columns(project, rows)
    batch = _Batch(db, project, options)
    for row in rows:
        batch.add(row)
    return batch.commit()


def _check_columns(project: Project, rows: Iterable[Row]) -> None:
    dictionary = project.dictionary
    known = {*dictionary.columns, *dictionary.form_of_status, *_PSEUDO, dictionary.record_id}
    known |= {f"{form}_timestamp" for form in dictionary.forms}
    unknown = list(dict.fromkeys(name for row in rows for name in row if name not in known))
    if unknown:
        raise ApiError(
            "The following fields were not found in the project as real data fields: "
            + ", ".join(unknown)
        )


class _Batch:
    """Collects rows as answers by record and place."""

    def __init__(self, db: sqlite3.Connection, project: Project, options: Options) -> None:
        self._db = db
        self._project = project
        self._options = options
        self._faults: list[Fault] = []
        self._answers: dict[tuple[str, Place], Answers] = {}
        self._groups: dict[str, str] = {}
        self._named: dict[str, str] = {}
        self._stored: dict[str, str] = {}
        self._next = records.next_number(db, project.id) if options.auto_number else 0

    def add(self, row: Row) -> None:
        """Add one row; its errors are reported with those of the whole batch."""
        name = self._name(row)
        place = self._place(name, row)
        if place is None or not self._may_touch(name):
            return
        answers = self._current(name, place)
        forms = forms_of(self._project, place)
        for column, text in row.items():
            self._set(answers, column, text, name=name, place=place, forms=forms)
        group = row.get("redcap_data_access_group", "").strip()
        if group and group not in self._project.groups:
            self._fault(name, "redcap_data_access_group", group, "This group does not exist.")
        elif group:
            self._groups[name] = group

    def commit(self) -> Imported:
        """Store everything, or raise one error with all faults."""
        if self._faults:
            raise ApiError("\n".join(map(str, self._faults)))
        done = Imported(names=dict(self._named))
        for name in self._named:
            if records.create(self._db, self._project.id, name):
                done.created.add(name)
                if self._options.group:
                    records.set_group(self._db, self._project.id, name, self._options.group)
        for (name, place), answers in self._answers.items():
            records.write_entry(self._db, self._project.id, name, place, answers)
        calculations = Calculations(self._project)
        for name in self._named:
            calculations.update(self._db, name)
        for name, group in self._groups.items():
            records.set_group(self._db, self._project.id, name, group)
        return done

    def _name(self, row: Row) -> str:
        given = row.get(self._project.dictionary.record_id, "").strip()
        if not given:
            raise ApiError(
                f"The record id field '{self._project.dictionary.record_id}' is missing or empty "
                "in a row of the data being imported."
            )
        check_name(given)
        if not self._options.auto_number:
            name = self._spelling(given)
            self._named.setdefault(name, given)
            return name
        for name, original in self._named.items():
            if original == given:
                return name
        name = str(self._next)
        self._next += 1
        self._named[name] = given
        return name

    def _spelling(self, given: str) -> str:
        """Return a record's stored name, or its first spelling in the batch."""
        folded = records.fold(given)
        if folded not in self._stored:
            known = records.canonical(self._db, self._project.id, [given])
            self._stored[folded] = known.get(given, given)
        return self._stored[folded]

    def _may_touch(self, name: str) -> bool:
        """Return whether the caller's data access group may change the record."""
        if not self._options.group:
            return True
        group = records.group_of(self._db, self._project.id, name)
        if group in {None, self._options.group}:
            return True
        reason = "The record belongs to another data access group."
        self._fault(name, self._project.dictionary.record_id, name, reason)
        return False

    def _place(self, name: str, row: Row) -> Place | None:
        event = self._event(name, row)
        if event is None:
            return None
        instrument = row.get("redcap_repeat_instrument", "").strip()
        wanted = row.get("redcap_repeat_instance", "").strip()
        if instrument and not self._project.repeats_form(event, instrument):
            reason = "This is not a repeating instrument."
            self._fault(name, "redcap_repeat_instrument", instrument, reason)
            return None
        if not instrument and not self._project.repeats_event(event):
            return Place(event.event_id)
        if wanted == "new":
            return Place(event.event_id, instrument, self._next_instance(name, event, instrument))
        # Spreadsheets write 1 as 1.0 if the column has blanks.
        whole = re.fullmatch(r"([1-9]\d{0,5})(\.0)?", wanted or "1", re.ASCII)
        if whole is None:
            self._fault(name, "redcap_repeat_instance", wanted, BAD_FORMAT)
            return None
        return Place(event.event_id, instrument, int(whole.group(1)))

    def _event(self, name: str, row: Row) -> Event | None:
        if not self._project.is_longitudinal:
            return self._project.default_event()
        wanted = row.get("redcap_event_name", "").strip()
        event = self._project.event_by_name.get(wanted)
        if event is None:
            reason = "The event name is missing or does not exist in the project."
            self._fault(name, "redcap_event_name", wanted, reason)
            return None
        return event

    def _next_instance(self, name: str, event: Event, instrument: str) -> int:
        found = records.find(self._db, self._project.id, name)
        stored = set(found.entries if found else ())
        taken = stored | {place for record, place in self._answers if record == name}
        numbers = [p.instance for p in taken if p[:2] == (event.event_id, instrument)]
        return max(numbers, default=0) + 1

    def _current(self, name: str, place: Place) -> Answers:
        key = (name, place)
        if key not in self._answers:
            stored = records.read_entry(self._db, self._project.id, name, place)
            self._answers[key] = stored or {}
        return self._answers[key]

    def _set(
        self,
        answers: Answers,
        column: str,
        text: str,
        *,
        name: str,
        place: Place,
        forms: frozenset[str],
    ) -> None:
        dictionary = self._project.dictionary
        answerable = column in dictionary.columns or column in dictionary.form_of_status
        if not answerable or column == dictionary.record_id:
            return
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        if text == "":
            if self._options.overwrite:
                self._erase(answers, column, forms)
            return
        form = dictionary.form_of_status.get(column)
        if form is not None and column not in dictionary.columns:
            self._refuse_form(name, column, text, form=form, place=place, forms=forms)
            reason = status_fault(column, text)
            if reason:
                self._fault(name, column, text, reason)
            answers[column] = text
            return
        asked, code = dictionary.columns[column]
        if asked.is_calculated:
            return
        self._refuse_form(name, column, text, form=asked.form_name, place=place, forms=forms)
        if code is not None:
            self._tick(answers, asked, code, text, name=name, column=column)
        elif asked.is_file:
            self._fault(name, column, text, "A file cannot be set by a record import.")
        else:
            self._answer(answers, asked, text, name=name)

    def _answer(self, answers: Answers, asked: Field, text: str, *, name: str) -> None:
        stored = to_stored(text, format_of(asked.validation), order=self._options.date_order)
        if self._project.takes_missing_code(asked, text):
            answers[asked.field_name] = text
            return
        reason = fault_of(asked, stored)
        if reason:
            self._fault(name, asked.field_name, text, reason)
        answers[asked.field_name] = stored

    def _tick(
        self, answers: Answers, asked: Field, code: str, text: str, *, name: str, column: str
    ) -> None:
        if text not in {"0", "1"}:
            self._fault(name, column, text, "A checkbox must be 0 or 1.")
            return
        ticked = set(answers.get(asked.field_name, ())) - {code} | (
            {code} if text == "1" else set()
        )
        answers[asked.field_name] = [option for option in asked.options if option in ticked]

    def _erase(self, answers: Answers, column: str, forms: frozenset[str]) -> None:
        dictionary = self._project.dictionary
        if column not in dictionary.columns:
            answers.pop(column, None)
            return
        asked, code = dictionary.columns[column]
        if asked.is_file or asked.is_calculated or asked.form_name not in forms:
            return
        if code is None:
            answers.pop(asked.field_name, None)
        else:
            left = [c for c in answers.get(asked.field_name, ()) if c != code]
            answers[asked.field_name] = left

    def _refuse_form(
        self, name: str, column: str, text: str, *, form: str, place: Place, forms: frozenset[str]
    ) -> None:
        """Report a value whose form does not belong to *place*."""
        if form in forms:
            return
        event = self._project.event_by_id[place.event_id]
        if form in self._project.forms_at(event):
            reason = (
                f"This field ('{column}') is kept in another row: "
                "see redcap_repeat_instrument and redcap_repeat_instance."
            )
        else:
            reason = (
                f"This field ('{column}') exists on an instrument that is not designated for the "
                f"event named '{event.event_name}'. You are not allowed to import data for this "
                "field into this event."
            )
        self._fault(name, column, text, reason)

    def _fault(self, name: str, column: str, value: str, reason: str) -> None:
        self._faults.append(Fault(name, column, value, reason))
