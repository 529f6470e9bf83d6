"""Codebook: describes each column of the data export."""

from collections.abc import Sequence

from survey_svc.requests.rules import Row
from survey_svc.study.dictionary import Dictionary
from survey_svc.study.profile import complete

COLUMNS = ("name", "form", "type", "label", "choices")
STATES = "0, Incomplete | 1, Unverified | 2, Complete"
"""Choices of a form's completion field.

Source:
    REDCap API 16.1.9, section 2.1.
"""


def codebook(dictionary: Dictionary, forms: Sequence[str]) -> list[Row]:
    """Return one row per column of an export of *forms*, in order.

    A row has the column's name, its form, REDCap's field type, its label, and its choices as
    ``code, label | code, label``.
    """
    rows: list[Row] = []
    for form in (name for name in dictionary.instruments if name in forms):
        for field in (field for field in dictionary.fields.values() if field.form == form):
            choices = " | ".join(f"{code}, {label}" for code, label in field.choices.items())
            for column, label in field.labelled_columns:
                rows.append(
                    {
                        "name": column,
                        "form": form,
                        "type": field.type,
                        "label": label,
                        "choices": choices,
                    }
                )
        rows.append(
            {
                "name": complete(form),
                "form": form,
                "type": "dropdown",
                "label": "Complete?",
                "choices": STATES,
            }
        )
    return rows
