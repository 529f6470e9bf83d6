"""Calculated fields: recomputed on every change, never imported."""

import sqlite3
from collections.abc import Mapping
from decimal import Context, Decimal

from sandbox.redcap.design.project import Project
from sandbox.redcap.errors import ApiError
from sandbox.redcap.filter_logic.evaluate import Compiled, Row, compile_logic
from sandbox.redcap.filter_logic.parser import parse
from sandbox.redcap.filter_logic.values import to_text
from sandbox.redcap.records import storage as records
from sandbox.redcap.records.exporting import forms_of

_SHOWN = Context(prec=15)
"""Significant digits of a computed number: the precision of a float."""


class Calculations:
    """The equations of a project; invalid ones are ignored."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._equations = _compiled(project)

    def update(self, db: sqlite3.Connection, name: str) -> None:
        """Recompute every calculated field of a record."""
        if not self._equations:
            return
        record = records.find(db, self._project.id, name)
        for place, answers in (record.entries if record else {}).items():
            if record is None or place.event_id not in self._project.event_by_id:
                continue
            fresh = dict(answers)
            forms = forms_of(self._project, place)
            for field_name, (form, equation) in self._equations.items():
                if form not in forms:
                    continue
                value = equation(Row(record, place))
                text = to_text(_SHOWN.plus(value) if isinstance(value, Decimal) else value)
                if text:
                    fresh[field_name] = text
                else:
                    fresh.pop(field_name, None)
            if fresh != answers:
                records.write_entry(db, self._project.id, name, place, fresh)


def _compiled(project: Project) -> Mapping[str, tuple[str, Compiled]]:
    found = {}
    for field in project.dictionary.fields:
        if field.is_calculated and field.select_choices_or_calculations.strip():
            try:
                equation = compile_logic(parse(field.select_choices_or_calculations), project)
            except ApiError:
                # A designer may save an equation before the fields that it refers to.
                continue
            found[field.field_name] = (field.form_name, equation)
    return found
