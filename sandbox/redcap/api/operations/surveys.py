"""``surveyLink``, ``surveyQueueLink``, access and return codes, participants."""

import sqlite3

from sandbox.redcap.api.operation import (
    SURVEYS,
    Answer,
    Call,
    Operations,
    plain,
    rows_answer,
    with_right,
)
from sandbox.redcap.design.project import Event
from sandbox.redcap.errors import ApiError
from sandbox.redcap.records import storage as records
from sandbox.redcap.records.storage import Place
from sandbox.redcap.surveys import responses
from sandbox.redcap.surveys.responses import Response

_PARTICIPANT = (
    "email",
    "email_occurrence",
    "identifier",
    "record",
    "invitation_sent_status",
    "invitation_send_time",
    "response_status",
    "survey_access_code",
    "survey_link",
    "survey_queue_link",
)


def survey_url(base_url: str, code: str) -> str:
    """Return the URL of a private survey link."""
    return f"{base_url}/surveys/?s={code}"


def queue_url(base_url: str, code: str) -> str:
    """Return the URL of a record's survey queue."""
    return f"{base_url}/surveys/?sq={code}"


def link(call: Call) -> Answer:
    """Return the private link of a record's survey; it never changes."""
    return plain(survey_url(call.base_url, _response(call).hash))


def access_code(call: Call) -> Answer:
    """Return the nine-character access code of a record's survey."""
    return plain(_response(call).access_code)


def return_code(call: Call) -> Answer:
    """Return the eight-character code that reopens a partial response."""
    form = _form(call)
    if not call.project.surveys[form].save_and_return:
        raise ApiError(f"Save & Return Later is not enabled for the survey '{form}'.")
    return plain(_response(call).return_code)


def queue_link(call: Call) -> Answer:
    """Return the link of a record's survey queue."""
    record = call.params.needed("record")
    if not call.project.queue:
        raise ApiError("The survey queue is not enabled in this project.")
    with call.store.writing() as db:
        _check_record(db, call, record)
        return plain(queue_url(call.base_url, responses.queue_hash(db, call.project.id, record)))


def participants(call: Call) -> Answer:
    """List the participants of a survey."""
    form = _form(call)
    event = _event(call, form)
    rows = []
    with call.store.writing() as db:
        repeats = call.project.repeats_form(event, form)
        for found in responses.of_survey(
            db, call.project.id, event.event_id, form, repeats=repeats
        ):
            queue = ""
            if call.project.queue:
                code = responses.queue_hash(db, call.project.id, found.record)
                queue = queue_url(call.base_url, code)
            rows.append(_participant(call, found, queue))
    return rows_answer(call, rows, columns=_PARTICIPANT, root="participants")


def _participant(call: Call, found: Response, queue: str) -> dict[str, object]:
    return {
        "email": "",
        "email_occurrence": 1,
        "identifier": "",
        "record": found.record,
        "invitation_sent_status": 0,
        "invitation_send_time": "",
        "response_status": found.status,
        "survey_access_code": found.access_code,
        "survey_link": survey_url(call.base_url, found.hash),
        "survey_queue_link": queue,
    }


def _response(call: Call) -> Response:
    record, form = call.params.needed("record"), _form(call)
    event = _event(call, form)
    instance = call.params.integer("repeat_instance", 1)
    if instance < 1:
        raise ApiError('The value of the parameter "repeat_instance" is not valid')
    repeats = call.project.repeats_form(event, form) or call.project.repeats_event(event)
    place = Place(event.event_id, form, instance if repeats else 1)
    # Most links exist already, and reading does not wait for writers.
    with call.store.reading() as db:
        _check_record(db, call, record)
        known = responses.peek(db, call.project.id, record, place)
    if known is not None:
        return known
    with call.store.writing() as db:
        _check_record(db, call, record)
        return responses.obtain(db, call.project.id, record, place)


def _check_record(db: sqlite3.Connection, call: Call, record: str) -> None:
    if not records.exists(db, call.project.id, record):
        raise ApiError(f'The record "{record}" does not exist')


def _form(call: Call) -> str:
    form = call.params.needed("instrument")
    if form not in call.project.dictionary.forms:
        raise ApiError(f"The instrument '{form}' does not exist in the project.")
    if form not in call.project.surveys:
        raise ApiError(f"The instrument '{form}' is not enabled as a survey.")
    return form


def _event(call: Call, form: str) -> Event:
    if not call.project.is_longitudinal:
        return call.project.default_event()
    event = call.project.event_by_name.get(call.params.needed("event"))
    if event is None:
        raise ApiError('The value of the parameter "event" is not an event of the project.')
    if form not in call.project.forms_at(event):
        raise ApiError(
            f"The instrument '{form}' is not designated for the event '{event.unique_event_name}'."
        )
    return event


OPERATIONS: Operations = {
    ("surveyLink", "export"): with_right(SURVEYS, link),
    ("surveyQueueLink", "export"): with_right(SURVEYS, queue_link),
    ("surveyAccessCode", "export"): with_right(SURVEYS, access_code),
    ("surveyReturnCode", "export"): with_right(SURVEYS, return_code),
    ("participantList", "export"): with_right(SURVEYS, participants),
}
