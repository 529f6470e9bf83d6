"""Rules of requests: their steps, states, and whose turn it is.

Pure functions of a profile and REDCap's codes, independent of gRPC and HTTP.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto

from survey_svc.study.profile import Condition, OpinionKind, OpinionProfile, Profile, complete

Row = Mapping[str, str]
"""One record: codes by variable, empty without a value."""
Label = Callable[[str, str], str]
"""Returns the label of a variable's code."""

COMPLETE = "2"


class Status(Enum):
    """Whose turn it is."""

    TO_COMPLETE = auto()
    TO_FOLLOW = auto()
    DONE = auto()


class StepKind(Enum):
    """Kind of a step."""

    FORM = auto()
    OPINION = auto()
    FINAL = auto()


class StepState(Enum):
    """State of a step; the contract explains the values."""

    NOT_AVAILABLE = auto()
    WAITING = auto()
    TO_DO = auto()
    UNDER_REVIEW = auto()
    DONE = auto()


@dataclass(frozen=True, slots=True)
class Step:
    """One step; ``url`` is set only while it is the applicant's turn."""

    instrument: str
    kind: StepKind
    state: StepState
    opinion: OpinionKind | None = None
    url: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as shown to its applicant."""

    id: str
    created_at: datetime | None
    title: str
    status: Status
    steps: tuple[Step, ...]
    fields: Mapping[str, str]


def derive(profile: Profile, row: Row, label: Label) -> Request:
    """Return the request in *row*."""
    steps = steps_of(profile, row)
    titles = (label(name, row[name]) for name in profile.title if row.get(name))
    return Request(
        id=row[profile.variables.record],
        created_at=parse_time(row.get(profile.variables.created_at, "")),
        title=next(titles, "")[:1000],
        status=status_of(steps),
        steps=steps,
        fields={name: label(name, row[name]) for name in profile.fields if row.get(name)},
    )


def steps_of(profile: Profile, row: Row) -> tuple[Step, ...]:
    """Return the steps of a request in order: form, required opinions, final validation."""
    form_done = is_complete(profile.form, row)
    form = Step(profile.form, StepKind.FORM, StepState.DONE if form_done else StepState.TO_DO)
    wanted = [opinion for opinion in profile.opinions if is_wanted(opinion, row)]
    opinions = [_opinion_step(opinion, row, form_done=form_done) for opinion in wanted]
    steps = [form, *opinions]
    if profile.final is not None:
        state = _final_state(opinions, form_done=form_done)
        if is_complete(profile.final, row):
            state = StepState.DONE
        steps.append(Step(profile.final, StepKind.FINAL, state))
    return tuple(steps)


def _opinion_step(opinion: OpinionProfile, row: Row, *, form_done: bool) -> Step:
    state, way = StepState.WAITING, None
    if form_done:
        state = StepState.UNDER_REVIEW
        if is_complete(opinion.instrument, row):
            state, way = StepState.DONE, opinion.codes.get(row.get(opinion.position, ""))
    return Step(opinion.instrument, StepKind.OPINION, state, way)


def _final_state(opinions: list[Step], *, form_done: bool) -> StepState:
    if not form_done or any(step.opinion is OpinionKind.UNFAVOURABLE for step in opinions):
        return StepState.NOT_AVAILABLE
    if any(step.state is not StepState.DONE for step in opinions):
        return StepState.WAITING
    return StepState.TO_DO


def status_of(steps: tuple[Step, ...]) -> Status:
    """Return whose turn it is.

    A request is done when its last step is; in a study without final validation, when the form and
    every opinion are complete, none of them unfavourable.
    """
    stopped = any(step.opinion is OpinionKind.UNFAVOURABLE for step in steps)
    final = next((step for step in steps if step.kind is StepKind.FINAL), None)
    if final is not None and final.state is StepState.DONE:
        return Status.DONE
    if any(step.state is StepState.TO_DO for step in steps):
        return Status.TO_COMPLETE
    if final is None and not stopped and all(step.state is StepState.DONE for step in steps):
        return Status.DONE
    return Status.TO_FOLLOW


def is_wanted(opinion: OpinionProfile, row: Row) -> bool:
    """Return whether this opinion is required for the request in *row*."""
    return any(_holds(condition, row) for condition in opinion.wanted_when)


def _holds(condition: Condition, row: Row) -> bool:
    return all(
        row.get(name, "") in codes if isinstance(codes, list) else bool(row.get(name))
        for name, codes in condition.items()
    )


def is_complete(instrument: str, row: Row) -> bool:
    """Return whether *instrument* is complete; unverified does not count."""
    return row.get(complete(instrument)) == COMPLETE


def is_open(profile: Profile, row: Row) -> bool:
    """Return whether the request in *row* prevents a new one."""
    return not is_complete(profile.form, row)


def newest_first(requests: list[Request]) -> list[Request]:
    """Sort *requests* newest first, those without a time last, ties by id."""
    return sorted(requests, key=order, reverse=True)


def order(request: Request) -> tuple[float, str]:
    """Return the sort key of requests: seconds since 1970 (-1 without a time), then id."""
    return (request.created_at.timestamp() if request.created_at else -1.0, request.id)


def parse_time(text: str) -> datetime | None:
    """Parse an ISO 8601 time, by default in UTC; return None if it is invalid."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    if not 1970 <= time.year <= 9000:
        return None  # Protobuf's Timestamp and the sort order need a sensible year.
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
