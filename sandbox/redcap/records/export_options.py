"""Options of a record export."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ExportOptions:
    """Options of a record export."""

    records: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    logic: str = ""
    since: str = ""
    until: str = ""
    labels: bool = False
    label_headers: bool = False
    checkbox_labels: bool = False
    survey_fields: bool = False
    groups: bool = False
    decimal_comma: bool = False
    blank_status: bool = False
    combine_checkboxes: bool = False
    username: str = ""
    group: str = ""
    """The data access group that the caller is restricted to; empty for none."""
