"""A project's design from project XML."""

from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree.ElementTree import Element

from sandbox.redcap.design import dictionary, rights
from sandbox.redcap.design.dictionary import Dictionary
from sandbox.redcap.design.names import unique_group_name, unique_role_name
from sandbox.redcap.design.project import Arm, Event, Project, QueueEntry, Survey
from sandbox.redcap.design.settings import DEFAULTS, parse, project_settings
from sandbox.redcap.odm.elements import attribute, each, text_of

_SETTINGS = {
    "RecordAutonumberingEnabled": "record_autonumbering_enabled",
    "CustomRecordLabel": "custom_record_label",
    "SecondaryUniqueField": "secondary_unique_field",
    "SchedulingEnabled": "scheduling_enabled",
    "SurveysEnabled": "surveys_enabled",
    "Purpose": "purpose",
    "PurposeOther": "purpose_other",
    "ProjectNotes": "project_notes",
    "MissingDataCodes": "missing_data_codes",
}
_ATTRIBUTES = {
    "field_type": "FieldType",
    "section_header": "SectionHeader",
    "field_note": "FieldNote",
    "text_validation_type_or_show_slider_number": "TextValidationType",
    "identifier": "Identifier",
    "branching_logic": "BranchingLogic",
    "required_field": "RequiredField",
    "custom_alignment": "CustomAlignment",
    "question_number": "QuestionNumber",
    "matrix_group_name": "MatrixGroupName",
    "matrix_ranking": "MatrixRanking",
    "field_annotation": "FieldAnnotation",
}


def read(root: Element) -> Project:
    """Read a project except its records.

    Raises:
        ApiError: The dictionary is invalid.
    """
    fields = Dictionary(dictionary.from_rows(_fields(root)).fields)
    events = _events(root)
    arms = {event.arm_num: Arm(event.arm_num, name) for event, name in events}
    project = Project(
        id=0,
        dictionary=fields,
        settings=_settings(root, longitudinal=bool(events)),
        labels={_form_name(form): attribute(form, "Name") for form in each(root, "FormDef")},
        groups={
            unique_group_name(label): (number, label)
            for number, label in enumerate(_names(root, "DataAccessGroups", "group_name"), start=1)
        },
        roles={
            unique_role_name(): {"role_label": name, **dict.fromkeys(rights.NAMES, 0)}
            for name in _names(root, "UserRoles", "role_name")
        },
        surveys=dict(_surveys(root, fields)),
        repeating=_repeating(root),
    )
    if not events:
        return project.replaced(queue=_queue(root, project))
    project = project.replaced(
        arms=tuple(arms[number] for number in sorted(arms)),
        events=tuple(event for event, _ in events),
        mappings=_mappings(root),
    )
    return project.replaced(queue=_queue(root, project))


def _settings(root: Element, *, longitudinal: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"project_title": text_of(root, "StudyName")}
    for tag, name in _SETTINGS.items():
        text = text_of(root, tag)
        if text:
            found[name] = parse(name, text) if name in DEFAULTS else text
    return project_settings(**found, is_longitudinal=int(longitudinal))


def _form_name(form: Element) -> str:
    return attribute(form, "FormName") or attribute(form, "OID").removeprefix("Form.")


def _fields(root: Element) -> Iterator[dict[str, str]]:
    groups = {attribute(group, "OID"): group for group in each(root, "ItemGroupDef")}
    items = {attribute(item, "OID"): item for item in each(root, "ItemDef")}
    choices = {attribute(codes, "OID"): codes for codes in each(root, "CodeList")}
    seen: set[str] = set()
    for form in each(root, "FormDef"):
        name = _form_name(form)
        for reference in each(form, "ItemGroupRef"):
            group = groups.get(attribute(reference, "ItemGroupOID"))
            for pointer in each(group, "ItemRef") if group is not None else ():
                item = items.get(attribute(pointer, "ItemOID"))
                if item is None or not attribute(item, "FieldType"):
                    continue
                variable = attribute(item, "Variable") or attribute(item, "Name")
                if variable in seen or variable == dictionary.status_field(name):
                    continue
                seen.add(variable)
                yield _field(item, choices) | {"field_name": variable, "form_name": name}


def _field(item: Element, choices: Mapping[str, Element]) -> dict[str, str]:
    row = {key: attribute(item, name) for key, name in _ATTRIBUTES.items()}
    row["field_label"] = text_of(item, "TranslatedText")
    kind = row["field_type"]
    listed = next(each(item, "CodeListRef"), None)
    codes = choices.get(attribute(listed, "CodeListOID")) if listed is not None else None
    if kind == "calc":
        row["select_choices_or_calculations"] = attribute(item, "Calculation")
    elif kind == "slider":
        row["select_choices_or_calculations"] = attribute(item, "SliderLabels")
    elif codes is not None and kind not in {"yesno", "truefalse"}:
        row["select_choices_or_calculations"] = _choices(codes)
    for check in each(item, "RangeCheck"):
        least = attribute(check, "Comparator") in {"GE", "GT"}
        key = "text_validation_min" if least else "text_validation_max"
        row[key] = text_of(check, "CheckValue")
    return row


def _choices(codes: Element) -> str:
    whole = attribute(codes, "CheckboxChoices")
    if whole:
        return " | ".join(part.strip() for part in whole.split("|"))
    return " | ".join(
        f"{attribute(item, 'CodedValue')}, {text_of(item, 'TranslatedText')}"
        for item in each(codes, "CodeListItem")
    )


def _events(root: Element) -> list[tuple[Event, str]]:
    """Return events with the names of their arms, in document order."""
    found = []
    for number, element in enumerate(each(root, "StudyEventDef"), start=1):
        arm = int(attribute(element, "ArmNum", "1"))
        event = Event(
            event_id=number,
            event_name=attribute(element, "EventName") or attribute(element, "Name"),
            arm_num=arm,
            unique_event_name=_event_name(element),
            custom_event_label=attribute(element, "CustomEventLabel"),
            day_offset=_whole(attribute(element, "DayOffset", "1")),
            offset_min=_whole(attribute(element, "OffsetMin")),
            offset_max=_whole(attribute(element, "OffsetMax")),
        )
        found.append((event, attribute(element, "ArmName", f"Arm {arm}")))
    return found


def _whole(text: str) -> int:
    return int(float(text)) if text.strip().replace(".", "", 1).isdecimal() else 0


def _event_name(element: Element) -> str:
    return attribute(element, "UniqueEventName") or attribute(element, "OID").removeprefix("Event.")


def _mappings(root: Element) -> frozenset[tuple[str, str]]:
    return frozenset(
        (_event_name(event), attribute(form, "FormName") or attribute(form, "FormOID")[5:])
        for event in each(root, "StudyEventDef")
        for form in each(event, "FormRef")
    )


def _repeating(root: Element) -> dict[tuple[str, str], str]:
    """Read repeating elements: an event and, unless the whole event repeats, a form."""
    group = next(each(root, "RepeatingInstrumentsAndEvents"), None)
    if group is None:
        return {}
    return {
        (attribute(e, "UniqueEventName"), attribute(e, "RepeatInstrument")): attribute(
            e, "CustomLabel"
        )
        for e in group.iter()
        if attribute(e, "UniqueEventName")
    }


def _names(root: Element, tag: str, name: str) -> list[str]:
    found = [attribute(element, name) for element in each(root, tag)]
    return list(dict.fromkeys(filter(None, found)))


def _surveys(root: Element, fields: Dictionary) -> Iterator[tuple[str, Survey]]:
    for element in each(root, "Surveys"):
        form = attribute(element, "form_name")
        if form not in fields.forms or attribute(element, "survey_enabled", "1") != "1":
            continue
        limit = attribute(element, "response_limit")
        yield (
            form,
            Survey(
                title=attribute(element, "title"),
                instructions=attribute(element, "instructions"),
                acknowledgement=attribute(element, "acknowledgement"),
                save_and_return=attribute(element, "save_and_return") == "1",
                return_without_code=attribute(element, "save_and_return_code_bypass") == "1",
                edit_completed_response=attribute(element, "edit_completed_response") == "1",
                question_by_section=attribute(element, "question_by_section") == "1",
                survey_expiration=attribute(element, "survey_expiration"),
                response_limit=int(limit) if limit.isdecimal() else 0,
                end_survey_redirect_url=attribute(element, "end_survey_redirect_url"),
                offer_pdf=attribute(element, "end_of_survey_pdf_download") == "1",
            ),
        )


def _queue(root: Element, project: Project) -> tuple[QueueEntry, ...]:
    """Read the survey queue.

    Their attributes are undocumented, so they are recognised by their values: a
    survey's name, an event's name, logic.
    """
    found = []
    for element in each(root, "SurveysQueue"):
        values = list(element.attrib.values())
        form = next((value for value in values if value in project.surveys), "")
        event = next((value for value in values if value in project.event_by_name), "")
        if form:
            default = project.default_event().unique_event_name
            logic = next((v for v in values if "[" in v), "")
            found.append(QueueEntry(form, event or default, logic))
    if not found and next(each(root, "SurveysQueue"), None) is not None:
        # A queue that cannot be parsed offers everything rather than nothing.
        event = project.default_event().unique_event_name
        return tuple(QueueEntry(form, event) for form in project.surveys)
    return tuple(found)
