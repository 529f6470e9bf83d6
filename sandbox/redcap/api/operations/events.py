"""``arm``, ``event``, ``formEventMapping``, ``repeatingFormsEvents``."""

from sandbox.redcap.api.changes import change, data_rows
from sandbox.redcap.api.checks import must_exist
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
from sandbox.redcap.design.project import Arm, Event, Project, unique_event_name
from sandbox.redcap.errors import ApiError

_OFFSETS = ("day_offset", "offset_min", "offset_max")


def export_arms(call: Call) -> Answer:
    """List the arms that have events."""
    _longitudinal(call, "export", "arms")
    used = {event.arm_num for event in call.project.events}
    rows = [
        {"arm_num": arm.arm_num, "name": arm.name}
        for arm in call.project.arms
        if arm.arm_num in used and _asked(call, arm.arm_num)
    ]
    return rows_answer(call, rows, columns=("arm_num", "name"))


def import_arms(call: Call) -> Answer:
    """Add or rename arms; with override, first delete all arms with their events and mappings."""
    _longitudinal(call, "import", "arms")
    given = [Arm(_arm_number(row), row.get("name", "").strip()) for row in data_rows(call)]
    if any(not arm.name for arm in given):
        raise ApiError("Every arm needs a name.")
    override = call.params.flag("override")

    def edit(project: Project) -> Project:
        kept = {} if override else {arm.arm_num: arm for arm in project.arms}
        arms = kept | {arm.arm_num: arm for arm in given}
        if override:
            project = project.replaced(events=(), mappings=frozenset())
        return project.replaced(arms=tuple(arms[number] for number in sorted(arms)))

    change(call, edit, details="Import arms")
    return count_answer(call, len(given))


def delete_arms(call: Call) -> Answer:
    """Delete arms with their events."""
    _longitudinal(call, "delete", "arms")
    numbers = {_number(text) for text in call.params.items("arms")}
    must_exist("arms", numbers, {arm.arm_num for arm in call.project.arms})

    def edit(project: Project) -> Project:
        events = tuple(event for event in project.events if event.arm_num not in numbers)
        arms = tuple(arm for arm in project.arms if arm.arm_num not in numbers)
        return _trimmed(project.replaced(arms=arms, events=events))

    change(call, edit, details="Delete arms")
    return count_answer(call, len(numbers))


def export_events(call: Call) -> Answer:
    """List events in the order of their arms."""
    _longitudinal(call, "export", "events")
    scheduled = bool(call.project.settings.get("scheduling_enabled"))
    extra = ("days_offset", "offset_min", "offset_max") if scheduled else ()
    plain = ("event_name", "arm_num", "unique_event_name", "custom_event_label", "event_id")
    rows = [
        {
            "event_name": event.event_name,
            "arm_num": event.arm_num,
            "unique_event_name": event.unique_event_name,
            "custom_event_label": event.custom_event_label,
            "event_id": event.event_id,
            "days_offset": event.day_offset,
            "offset_min": event.offset_min,
            "offset_max": event.offset_max,
        }
        for event in call.project.events
        if _asked(call, event.arm_num)
    ]
    columns = (*plain, *extra)
    kept = [{name: row[name] for name in columns} for row in rows]
    return rows_answer(call, kept, columns=columns)


def import_events(call: Call) -> Answer:
    """Add events, or change those with a known unique name."""
    _longitudinal(call, "import", "events")
    rows = data_rows(call)
    override = call.params.flag("override")

    def edit(project: Project) -> Project:
        if override:
            project = _trimmed(project.replaced(events=()))
        arms = {arm.arm_num for arm in project.arms}
        events = {event.unique_event_name: event for event in project.events}
        following = max((event.event_id for event in call.project.events), default=0) + 1
        for row in rows:
            event = _event(row, following, known=events)
            if event.arm_num not in arms:
                raise ApiError(f"The arm {event.arm_num} does not exist in the project.")
            following += event.unique_event_name not in events
            events[event.unique_event_name] = event
        ordered = sorted(events.values(), key=lambda event: event.arm_num)
        return project.replaced(events=tuple(ordered))

    change(call, edit, details="Import events")
    return count_answer(call, len(rows))


def delete_events(call: Call) -> Answer:
    """Delete events with their mappings."""
    _longitudinal(call, "delete", "events")
    names = set(call.params.items("events"))
    must_exist("events", names, call.project.event_by_name)

    def edit(project: Project) -> Project:
        kept = tuple(e for e in project.events if e.unique_event_name not in names)
        return _trimmed(project.replaced(events=kept))

    change(call, edit, details="Delete events")
    return count_answer(call, len(names))


def export_mappings(call: Call) -> Answer:
    """List which form is filled at which event."""
    _longitudinal(call, "export", "form/event mappings")
    rows = [
        {"arm_num": event.arm_num, "unique_event_name": event.unique_event_name, "form": form}
        for event in call.project.events
        for form in call.project.forms_at(event)
        if _asked(call, event.arm_num)
    ]
    return rows_answer(call, rows, columns=("arm_num", "unique_event_name", "form"))


def import_mappings(call: Call) -> Answer:
    """Replace all mappings."""
    _longitudinal(call, "import", "form/event mappings")
    pairs = [(row.get("unique_event_name", ""), row.get("form", "")) for row in data_rows(call)]
    must_exist("unique_event_name", {event for event, _ in pairs}, call.project.event_by_name)
    must_exist("form", {form for _, form in pairs}, call.project.dictionary.forms)
    change(call, lambda p: p.replaced(mappings=frozenset(pairs)), details="Import mappings")
    return count_answer(call, len(pairs))


def export_repeating(call: Call) -> Answer:
    """Export repeating instruments and events."""
    project = call.project
    if not project.repeating:
        raise ApiError(
            "You cannot export repeating instruments and events because the project does not "
            "contain any repeating instruments and events"
        )
    event_column = ("event_name",) if project.is_longitudinal else ()
    columns = (*event_column, "form_name", "custom_form_label")
    rows = [
        {"event_name": event, "form_name": form, "custom_form_label": label}
        for (event, form), label in project.repeating.items()
    ]
    kept = [{name: row[name] for name in columns} for row in rows]
    return rows_answer(call, kept, columns=columns)


def import_repeating(call: Call) -> Answer:
    """Replace the repeating instruments and events."""
    project = call.project
    repeating = {}
    for row in data_rows(call):
        event = row.get("event_name", "")
        if not project.is_longitudinal:
            event = project.default_event().unique_event_name
        form = row.get("form_name", "")
        must_exist("event_name", {event}, project.event_by_name)
        if form:
            must_exist("form_name", {form}, project.dictionary.forms)
        repeating[event, form] = row.get("custom_form_label", "")
    change(call, lambda p: p.replaced(repeating=repeating), details="Set up repeating instruments")
    return count_answer(call, len(repeating))


def _longitudinal(call: Call, verb: str, things: str) -> None:
    if not call.project.is_longitudinal:
        raise ApiError(f"You cannot {verb} {things} for classic projects")


def _asked(call: Call, arm_num: int) -> bool:
    asked = call.params.items("arms")
    return not asked or str(arm_num) in asked


def _arm_number(row: dict[str, str]) -> int:
    return _number(row.get("arm_num", ""))


def _number(text: str) -> int:
    if not text.strip().isdecimal():
        raise ApiError(f"An arm number must be an integer, not '{text}'.")
    return int(text)


def _event(row: dict[str, str], number: int, known: dict[str, Event]) -> Event:
    label = row.get("event_name", "").strip()
    if not label:
        raise ApiError("Every event needs an event_name.")
    arm = _arm_number(row)
    name = row.get("unique_event_name", "").strip() or unique_event_name(label, arm)
    before = known.get(name)
    offsets = {
        key: _whole(row.get(key) or row.get("days_offset" if key == "day_offset" else key, ""))
        for key in _OFFSETS
    }
    return Event(
        event_id=before.event_id if before else number,
        event_name=label,
        arm_num=arm,
        unique_event_name=name,
        custom_event_label=row.get("custom_event_label", ""),
        **offsets,
    )


def _whole(text: str) -> int:
    return int(text) if text.strip().lstrip("-").isdecimal() else 0


def _trimmed(project: Project) -> Project:
    """Return the project without mappings and repetitions of deleted events."""
    names = {event.unique_event_name for event in project.events}
    return project.replaced(
        mappings=frozenset(pair for pair in project.mappings if pair[0] in names),
        repeating={key: label for key, label in project.repeating.items() if key[0] in names},
    )


OPERATIONS: Operations = {
    ("arm", "export"): with_right(EXPORT, export_arms),
    ("arm", "import"): with_right(DESIGN, import_arms),
    ("arm", "delete"): with_right(DESIGN, delete_arms),
    ("event", "export"): with_right(EXPORT, export_events),
    ("event", "import"): with_right(DESIGN, import_events),
    ("event", "delete"): with_right(DESIGN, delete_events),
    ("formEventMapping", "export"): with_right(EXPORT, export_mappings),
    ("formEventMapping", "import"): with_right(DESIGN, import_mappings),
    ("repeatingFormsEvents", "export"): with_right(EXPORT, export_repeating),
    ("repeatingFormsEvents", "import"): with_right(DESIGN, import_repeating),
}
