"""A project's design, without its records.

An immutable value, stored as one JSON document and replaced as a whole, so
that readers never see a partial change.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Self

from sandbox.redcap.design import dictionary
from sandbox.redcap.design.dictionary import Dictionary, Field
from sandbox.redcap.errors import ApiError


@dataclass(frozen=True)
class Arm:
    """A group of events."""

    arm_num: int
    name: str


@dataclass(frozen=True)
class Event:
    """A visit or time point at which forms are filled in."""

    event_id: int
    event_name: str
    arm_num: int
    unique_event_name: str
    custom_event_label: str = ""
    day_offset: int = 1
    offset_min: int = 0
    offset_max: int = 0


@dataclass(frozen=True)
class Survey:
    """Survey settings of an instrument."""

    title: str = ""
    instructions: str = ""
    acknowledgement: str = ""
    save_and_return: bool = False
    return_without_code: bool = False
    edit_completed_response: bool = False
    question_by_section: bool = False
    survey_expiration: str = ""
    """``YYYY-MM-DD HH:MM``, server time; empty if it never expires."""
    response_limit: int = 0
    """Number of completed responses after which the survey closes; 0 for no limit."""
    end_survey_redirect_url: str = ""
    offer_pdf: bool = False


@dataclass(frozen=True)
class QueueEntry:
    """The condition under which the survey queue offers a survey."""

    form_name: str
    unique_event_name: str
    condition: str = ""
    after_form: str = ""
    """The survey that must be completed first; empty for none."""


@dataclass(frozen=True)
class Project:
    """One project without its records."""

    id: int
    dictionary: Dictionary
    settings: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    """Instrument labels by name."""
    arms: tuple[Arm, ...] = (Arm(1, "Arm 1"),)
    events: tuple[Event, ...] = (Event(1, "Event 1", 1, "event_1_arm_1"),)
    mappings: frozenset[tuple[str, str]] = frozenset()
    """Pairs of unique event name and form; every form if the project is classic."""
    repeating: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Custom labels by unique event name and form; an empty form means the whole event."""
    surveys: Mapping[str, Survey] = field(default_factory=dict)
    queue: tuple[QueueEntry, ...] = ()
    users: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    roles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Rights by unique role name."""
    role_of: Mapping[str, str] = field(default_factory=dict)
    """Unique role name by user."""
    groups: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Id and label of data access groups by unique name."""
    group_of: Mapping[str, str] = field(default_factory=dict)
    """Unique group name by user."""

    @property
    def title(self) -> str:
        """Project title."""
        return str(self.settings.get("project_title", ""))

    @property
    def is_longitudinal(self) -> bool:
        """Whether its forms are filled in at several events."""
        return bool(int(self.settings.get("is_longitudinal", 0) or 0))

    @cached_property
    def missing_data_codes(self) -> Mapping[str, str]:
        """Labels of the missing data codes, by code."""
        pairs = str(self.settings.get("missing_data_codes") or "").replace("\n", "|").split("|")
        parted = (pair.partition(",") for pair in pairs if pair.strip())
        return {code.strip(): label.strip() for code, _, label in parted}

    def takes_missing_code(self, asked: Field, text: str) -> bool:
        """Return whether *text* is a missing data code that the field *asked* accepts."""
        return text in self.missing_data_codes and "@NOMISSING" not in asked.field_annotation

    @property
    def is_french(self) -> bool:
        """Whether its pages are in French rather than English."""
        return str(self.settings.get("project_language", "")).lower().startswith("fr")

    @cached_property
    def event_by_name(self) -> dict[str, Event]:
        """Events by unique name."""
        return {event.unique_event_name: event for event in self.events}

    @cached_property
    def event_by_id(self) -> dict[int, Event]:
        """Events by id."""
        return {event.event_id: event for event in self.events}

    @cached_property
    def event_rank(self) -> dict[int, int]:
        """Position of each event in exports, by id."""
        return {event.event_id: rank for rank, event in enumerate(self.events)}

    def label(self, form: str) -> str:
        """Return the label of an instrument."""
        return self.labels.get(form) or prettify(form)

    def forms_at(self, event: Event) -> tuple[str, ...]:
        """Return the forms designated for *event*, in dictionary order."""
        forms = tuple(self.dictionary.forms)
        if not self.is_longitudinal:
            return forms
        return tuple(f for f in forms if (event.unique_event_name, f) in self.mappings)

    def repeats_form(self, event: Event, form: str) -> bool:
        """Return whether *form* itself repeats at *event*."""
        return (event.unique_event_name, form) in self.repeating

    def repeats_event(self, event: Event) -> bool:
        """Return whether *event* repeats as a whole."""
        return (event.unique_event_name, "") in self.repeating

    def default_event(self) -> Event:
        """The first event; the only one of a classic project."""
        if not self.events:
            raise ApiError("The project has no events.")
        return self.events[0]

    def rights_of(self, username: str) -> Mapping[str, Any]:
        """Return the rights of a user: those of their role if they have one."""
        role = self.role_of.get(username, "")
        own = self.users.get(username, {})
        return {**own, **self.roles[role]} if role in self.roles else own

    def replaced(self, **changes: Any) -> Self:
        """Return the project with some of its attributes replaced."""
        return replace(self, **changes)

    def with_settings(self, **settings: Any) -> Self:
        """Return the project with some settings changed."""
        return self.replaced(settings={**self.settings, **settings})


def prettify(name: str) -> str:
    """Return a label for a name: ``reviewer_1`` becomes ``Reviewer 1``."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def unique_event_name(label: str, arm_num: int) -> str:
    """Return an event's unique name, which clients use.

    Source:
        Lower case, other characters as ``_``, 18 characters kept, ``_arm_N``.
    """
    kept = re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")[:18].rstrip("_")
    return f"{kept}_arm_{arm_num}"


def dump(project: Project) -> str:
    """Return the project as a JSON document."""
    return json.dumps(
        {
            "fields": project.dictionary.rows(),
            "settings": dict(project.settings),
            "labels": dict(project.labels),
            "arms": [asdict(arm) for arm in project.arms],
            "events": [asdict(event) for event in project.events],
            "mappings": sorted(project.mappings),
            "repeating": [[*key, label] for key, label in project.repeating.items()],
            "surveys": {form: asdict(survey) for form, survey in project.surveys.items()},
            "queue": [asdict(entry) for entry in project.queue],
            "users": {name: dict(rights) for name, rights in project.users.items()},
            "roles": {name: dict(rights) for name, rights in project.roles.items()},
            "role_of": dict(project.role_of),
            "groups": {name: list(group) for name, group in project.groups.items()},
            "group_of": dict(project.group_of),
        },
        ensure_ascii=False,
    )


def load(project_id: int, document: str) -> Project:
    """Return the project from its JSON document; the inverse of :func:`dump`."""
    data = json.loads(document)
    return Project(
        id=project_id,
        dictionary=dictionary.from_rows(data["fields"]),
        settings=data["settings"],
        labels=data["labels"],
        arms=tuple(Arm(**arm) for arm in data["arms"]),
        events=tuple(Event(**event) for event in data["events"]),
        mappings=frozenset((event, form) for event, form in data["mappings"]),
        repeating={(event, form): label for event, form, label in data["repeating"]},
        surveys={form: Survey(**survey) for form, survey in data["surveys"].items()},
        queue=tuple(QueueEntry(**entry) for entry in data["queue"]),
        users=data["users"],
        roles=data["roles"],
        role_of=data["role_of"],
        groups={name: (number, label) for name, (number, label) in data["groups"].items()},
        group_of=data["group_of"],
    )
