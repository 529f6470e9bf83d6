"""Codebook: describes each column of the data export."""

from survey_svc.requests.rules import Row
from survey_svc.study.profile import complete
from survey_svc.study.study import Study

COLUMNS = ("name", "form", "type", "label", "choices")
STATES = "0, Incomplete | 1, Unverified | 2, Complete"
"""Choices of a form's completion field.

Source:
    REDCap API 16.1.9, section 2.1.
"""


def codebook(study: Study) -> list[Row]:
    """Return one row per column of an export, in order.

    A row has the column's name, its form, REDCap's field type, its label, and its choices as
    ``code, label | code, label``.
    """
    dictionary, forms = study.dictionary, study.profile.export
    record = study.profile.variables.record
    rows: list[Row] = []
    for form in (name for name in dictionary.instruments if name in forms):
        for field in (field for field in dictionary.fields.values() if field.form == form):
            choices = " | ".join(f"{code}, {label}" for code, label in field.choices.items())
            for column, label in field.labelled_columns if field.name != record else ():
                rows.append(_row(column, form, field.type, label, choices))
        rows.append(_row(complete(form), form, "dropdown", "Complete?", STATES))
    field = dictionary.fields[record]
    rows.append(_row(record, field.form, field.type, field.label))
    return rows


def _row(name: str, form: str, kind: str, label: str, choices: str = "") -> Row:
    return dict(zip(COLUMNS, (name, form, kind, label, choices), strict=True))
