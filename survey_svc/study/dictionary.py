"""The study's REDCap data dictionary, and the check of a profile against it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from survey_svc.study.profile import Profile, complete

YES_NO = {"1": "Yes", "0": "No"}
TRUE_FALSE = {"1": "True", "0": "False"}


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its form, type, label and, for choices, the label of each code."""

    name: str
    form: str
    type: str
    choices: Mapping[str, str]
    label: str = ""

    @property
    def columns(self) -> list[str]:
        """The columns of the field in a flat export."""
        if self.type == "checkbox":
            codes = (code.lower().replace("-", "_") for code in self.choices)
            return [f"{self.name}___{code}" for code in codes]
        return [] if self.type == "descriptive" else [self.name]

    @property
    def labelled_columns(self) -> list[tuple[str, str]]:
        """The columns with their labels; a checkbox column includes its choice."""
        if self.type != "checkbox":
            return [(name, self.label) for name in self.columns]
        labels = (f"{self.label} (choice={choice})" for choice in self.choices.values())
        return list(zip(self.columns, labels, strict=True))


@dataclass(frozen=True)
class Dictionary:
    """The fields of a project in order, its instruments, and the exportable columns."""

    fields: Mapping[str, Field]
    instruments: tuple[str, ...]
    columns: frozenset[str]
    """Exportable names: variables with values, and completion fields."""

    def label(self, name: str, value: str) -> str:
        """Return the label of a code; other values are returned unchanged."""
        field = self.fields.get(name)
        return field.choices.get(value, value) if field else value

    def columns_of(self, forms: Sequence[str]) -> list[str]:
        """Return the columns of an export of *forms*, in the order of the project."""
        found = []
        for form in (name for name in self.instruments if name in forms):
            for field in (field for field in self.fields.values() if field.form == form):
                found += field.columns
            found.append(complete(form))
        return found


def faults(profile: Profile, dictionary: Dictionary) -> list[str]:
    """Return one sentence for each mismatch between *profile* and REDCap."""
    return [*_missing(profile, dictionary), *_wrong_codes(profile, dictionary)]


def _missing(profile: Profile, dictionary: Dictionary) -> list[str]:
    found = [
        f"There is no instrument {name!r}."
        for name in profile.instruments
        if name not in dictionary.instruments
    ]
    found += [
        f"The instrument {name!r} has no completion field {complete(name)!r}."
        for name in profile.instruments
        if name in dictionary.instruments and complete(name) not in dictionary.columns
    ]
    completions = {complete(name) for name in profile.instruments}
    variables = profile.variables
    named = [*profile.columns, variables.email, variables.consent_time, variables.consent_notice]
    found += [
        f"There is no variable {name!r}."
        for name in dict.fromkeys(named)
        if name and name not in dictionary.columns and name not in completions
    ]
    first = next(iter(dictionary.fields), "")
    if variables.record in dictionary.fields and variables.record != first:
        found.append(f"The record id is {first!r}, not {variables.record!r}.")
    return found


def _wrong_codes(profile: Profile, dictionary: Dictionary) -> list[str]:
    """Yield codes that a choice field does not have: conditions on them could never match."""
    found = []
    for opinion in profile.opinions:
        used = [(opinion.position, list(opinion.codes))]
        for condition in opinion.wanted_when:
            used += [(name, codes) for name, codes in condition.items() if codes != "filled"]
        for name, codes in used:
            field = dictionary.fields.get(name)
            if field is not None and field.choices:
                found += [
                    f"The variable {name!r} has no code {code!r}."
                    for code in codes
                    if code not in field.choices
                ]
    return list(dict.fromkeys(found))


def parse_choices(kind: str, text: str) -> dict[str, str]:
    """Return the label of each code of a field.

    Args:
        kind: The field's type.
        text: Its choices in dictionary syntax, ``1, Red | 2, Green, light``.
    """
    if kind == "yesno":
        return dict(YES_NO)
    if kind == "truefalse":
        return dict(TRUE_FALSE)
    if kind not in {"dropdown", "radio", "checkbox"}:
        return {}
    pairs = (choice.partition(",") for choice in text.split("|"))
    return {code.strip(): label.strip() for code, comma, label in pairs if comma}
