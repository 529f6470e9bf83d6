"""``metadata``, ``exportFieldNames``, ``instrument``, ``fieldValidation``."""

from sandbox.redcap.api.changes import change, data_rows
from sandbox.redcap.api.operation import (
    DESIGN,
    EXPORT,
    Answer,
    Call,
    Operations,
    count_answer,
    rows_answer,
    with_right,
)
from sandbox.redcap.design import dictionary
from sandbox.redcap.design.dictionary import KEYS, status_field
from sandbox.redcap.design.validation import PATTERNS
from sandbox.redcap.errors import ApiError
from sandbox.redcap.records.exporting import check_names


def export_metadata(call: Call) -> Answer:
    """Export the dictionary, or some of its fields and forms."""
    known = call.project.dictionary
    fields, forms = call.params.items("fields"), call.params.items("forms")
    check_names("fields", fields, known.by_name)
    check_names("forms", forms, known.forms)
    rows = [
        row
        for row in known.rows()
        if not (fields or forms) or row["field_name"] in fields or row["form_name"] in forms
    ]
    return rows_answer(call, rows, columns=KEYS, root="records")


def import_metadata(call: Call) -> Answer:
    """Replace the whole dictionary."""
    if int(call.project.settings.get("in_production", 0)):
        raise ApiError("The data dictionary of a project in production cannot be replaced.")
    new = dictionary.from_rows(data_rows(call))
    change(call, lambda p: p.replaced(dictionary=new), details="Upload data dictionary")
    return count_answer(call, len(new.fields))


def export_field_names(call: Call) -> Answer:
    """List the export columns of each field."""
    columns = ("original_field_name", "choice_value", "export_field_name")
    wanted = call.params.text("field")
    rows = []
    for form, fields in call.project.dictionary.forms.items():
        for field in fields:
            if field.is_file:
                continue
            codes = tuple(field.options) if field.is_checkbox else ("",) * len(field.columns)
            rows += [
                (field.field_name, code, column)
                for code, column in zip(codes, field.columns, strict=True)
            ]
        rows.append((status_field(form), "", status_field(form)))
    if wanted:
        rows = [row for row in rows if row[0] == wanted]
        if not rows:
            raise ApiError(f"The field '{wanted}' does not exist in the project.")
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    return rows_answer(call, found, columns=columns, root="fields")


def export_instruments(call: Call) -> Answer:
    """List the names and labels of the instruments, in order."""
    rows = [
        {"instrument_name": form, "instrument_label": call.project.label(form)}
        for form in call.project.dictionary.forms
    ]
    return rows_answer(call, rows, columns=("instrument_name", "instrument_label"))


def export_validations(call: Call) -> Answer:
    """List the validation types of text fields."""
    dated = {"date", "datetime", "datetime_seconds"}
    orders = ("dmy", "mdy", "ymd")
    rows = [
        {"validation_type": name + suffix, "regex": f"/^{pattern}$/"}
        for name, pattern in sorted(PATTERNS.items())
        for suffix in ([f"_{order}" for order in orders] if name in dated else [""])
    ]
    return rows_answer(call, rows, columns=("validation_type", "regex"))


OPERATIONS: Operations = {
    ("metadata", "export"): with_right(EXPORT, export_metadata),
    ("metadata", "import"): with_right(DESIGN, import_metadata),
    ("exportFieldNames", "export"): with_right(EXPORT, export_field_names),
    ("instrument", "export"): with_right(EXPORT, export_instruments),
    ("fieldValidation", "export"): with_right(EXPORT, export_validations),
}
