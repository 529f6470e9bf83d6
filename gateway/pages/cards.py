"""Request cards: one card per request, one row per step."""

from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from amarre.survey.v1 import survey_pb2 as pb

_STATE_TONES = {
    pb.STEP_STATE_NOT_AVAILABLE: "closed",
    pb.STEP_STATE_WAITING: "waiting",
    pb.STEP_STATE_TO_DO: "todo",
    pb.STEP_STATE_UNDER_REVIEW: "review",
    pb.STEP_STATE_DONE: "done",
}
_OPINION_TONES = {
    pb.OPINION_FAVOURABLE: "done",
    pb.OPINION_WITH_RESERVATIONS: "reserved",
    pb.OPINION_UNFAVOURABLE: "against",
}

_GROUPS = {
    pb.REQUEST_STATUS_TO_COMPLETE: "complete",
    pb.REQUEST_STATUS_TO_FOLLOW: "follow",
    pb.REQUEST_STATUS_DONE: "follow",
}


@dataclass(frozen=True)
class Row:
    """One step: name, colour, state and link."""

    instrument: str
    kind: str
    tone: str
    state: str
    """Key of its text below ``states``."""
    url: str
    """Link to the survey; empty when there is nothing to do."""
    pdf: str
    """Link to the PDF; empty when there is none."""


@dataclass(frozen=True)
class Card:
    """One request."""

    id: str
    title: str
    created_at: datetime | None
    status: str
    """Key of its text below ``status``, and its colour."""
    group: str
    """The tab that shows it; empty for none."""
    fields: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]

    @property
    def steps_done(self) -> int:
        """Number of finished steps."""
        return sum(row.tone in {"done", "reserved"} for row in self.rows)


def card(request: pb.Request) -> Card:
    """Return the card of *request*."""
    created = request.create_time.ToDatetime(UTC) if request.HasField("create_time") else None
    rows = tuple(_row(request.id, step) for step in request.steps)
    return Card(
        id=request.id,
        title=request.title,
        created_at=created,
        status=_status(request, rows),
        group=_GROUPS.get(request.status, ""),
        fields=tuple((name, value) for name, value in sorted(request.fields.items()) if value),
        rows=rows,
    )


def _status(request: pb.Request, rows: tuple[Row, ...]) -> str:
    if request.status == pb.REQUEST_STATUS_TO_FOLLOW and any(r.tone == "against" for r in rows):
        return "stopped"
    return pb.RequestStatus.Name(request.status).removeprefix("REQUEST_STATUS_").lower()


def _row(request_id: str, step: pb.Step) -> Row:
    kind = pb.StepKind.Name(step.kind).removeprefix("STEP_KIND_").lower()
    tone = _OPINION_TONES.get(step.opinion) or _STATE_TONES.get(step.state, "closed")
    state = (
        pb.Opinion.Name(step.opinion)
        if step.opinion != pb.OPINION_UNSPECIFIED
        else f"{kind}_{pb.StepState.Name(step.state).removeprefix('STEP_STATE_')}"
    )
    filled = kind == "form" and step.state == pb.STEP_STATE_DONE
    pdf = f"/api/v1/surveys/pdf?record_id={quote(request_id, safe='')}" if filled else ""
    return Row(
        instrument=step.instrument,
        kind=kind,
        tone=tone,
        state=state.lower(),
        url=step.url if urlsplit(step.url).scheme in {"http", "https"} else "",
        pdf=pdf,
    )
