"""Survey pages and the handling of submissions."""

import hmac
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sandbox.redcap.api.operation import Answer
from sandbox.redcap.api.operations.files import file_answer
from sandbox.redcap.api.operations.surveys import queue_url, survey_url
from sandbox.redcap.design.project import Project
from sandbox.redcap.filter_logic.evaluate import Row, condition
from sandbox.redcap.pages.questions import questions
from sandbox.redcap.pages.signature import signed
from sandbox.redcap.pages.templates import page
from sandbox.redcap.pages.texts import page_texts
from sandbox.redcap.records import audit_log as history
from sandbox.redcap.records import documents
from sandbox.redcap.records import storage as records
from sandbox.redcap.records.storage import Place, Record
from sandbox.redcap.store import Store, server_time
from sandbox.redcap.surveys import answering, responses
from sandbox.redcap.surveys.answering import Reading, Sheet, Submission
from sandbox.redcap.surveys.piping import Piping

RESPONDENT = "[survey respondent]"
"""Username in the audit log for survey responses."""


@dataclass(frozen=True)
class Visit:
    """A request for a survey page: store, base URL and request."""

    store: Store
    base_url: str
    hash: str
    query: Mapping[str, str]


def show(visit: Visit) -> Answer:
    """Show the survey page of a private link."""
    with visit.store.reading() as db:
        sheet = _open(db, visit)
        if sheet is None:
            return _unknown()
        if "__file" in visit.query:
            return _file(db, sheet, visit.query["__file"])
        done = sheet.response.status == 2
        if done and "__pdf" in visit.query and sheet.survey.offer_pdf:
            return _pdf(sheet)
        if done and not sheet.survey.edit_completed_response:
            return _message(sheet, "completed", "done")
        if _closed(db, sheet):
            return _message(sheet, "closed", "closed")
    if sheet.response.status == 1 and _needs_code(sheet):
        return _ask_code(sheet, wrong=False)
    return _form(visit, sheet, _stored(sheet, sheet.response.page), number=sheet.response.page)


def submit(visit: Visit, submission: Submission) -> Answer:
    """Process a submission and show the next page."""
    texts = submission.texts
    with visit.store.writing() as db:
        sheet = _open(db, visit)
        if sheet is None:
            return _unknown()
        if sheet.response.status == 2 and not sheet.survey.edit_completed_response:
            return _message(sheet, "completed", "done")
        if _closed(db, sheet):
            return _message(sheet, "closed", "closed")
        if sheet.response.status == 1 and _needs_code(sheet):
            given = texts.get("__code", "").strip().upper().encode()
            if not hmac.compare_digest(given, sheet.response.return_code.encode()):
                return _ask_code(sheet, wrong="__code" in texts)
        if texts.get("__action") == "open":
            number = sheet.response.page
            return _form(visit, sheet, _stored(sheet, number), number=number)
        return _submit(db, visit, sheet, submission)


def _submit(db: sqlite3.Connection, visit: Visit, sheet: Sheet, submission: Submission) -> Answer:
    action = submission.texts.get("__action", "submit")
    number = _page_number(sheet, submission.texts.get("__page", "0"))
    fields = sheet.pages[number]
    reading = answering.read(sheet, fields, signed(fields, submission))
    if action == "refresh":
        return _form(visit, sheet, replace(reading, faults={}), number=number)
    if action == "save" and sheet.survey.save_and_return:
        kept = {name: f for name, f in reading.faults.items() if f != answering.MISSING}
        if not kept:
            answering.keep(db, sheet, reading, page=number, complete=False)
            _note(db, sheet)
            return _saved(visit, sheet)
        return _form(visit, sheet, replace(reading, faults=kept), number=number, status=422)
    if action == "previous" and number > 0:
        return _turn(db, visit, sheet, replace(reading, faults={}), number - 1)
    if reading.faults:
        return _form(visit, sheet, reading, number=number, status=422)
    last = number + 1 == len(sheet.pages)
    if not last:
        return _turn(db, visit, sheet, reading, number + 1)
    answering.keep(db, sheet, reading, complete=True)
    _note(db, sheet)
    return _thanks(visit, sheet)


def _turn(
    db: sqlite3.Connection, visit: Visit, sheet: Sheet, reading: Reading, number: int
) -> Answer:
    """Store a page and show another."""
    answering.keep(db, sheet, reading, page=number, complete=False)
    _note(db, sheet)
    fresh = _open(db, visit)
    if fresh is None:
        return _unknown()
    return _form(visit, fresh, _stored(fresh, number), number=number)


def _open(db: sqlite3.Connection, visit: Visit) -> Sheet | None:
    response = responses.by_hash(db, visit.hash)
    if response is None:
        return None
    return answering.open_sheet(db, visit.store.project(db, response.project_id), response)


def _page_number(sheet: Sheet, text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    return min(number, len(sheet.pages) - 1)


def _closed(db: sqlite3.Connection, sheet: Sheet) -> bool:
    survey = sheet.survey
    if survey.survey_expiration and server_time() >= _padded(survey.survey_expiration):
        return True
    if not survey.response_limit or sheet.response.status == 2:
        return False
    return responses.completed_count(db, sheet.project.id, sheet.form) >= survey.response_limit


def _padded(moment: str) -> str:
    """Return *moment* with seconds, so that times compare as text."""
    return datetime.fromisoformat(moment).strftime("%Y-%m-%d %H:%M:%S")


def _needs_code(sheet: Sheet) -> bool:
    return sheet.survey.save_and_return and not sheet.survey.return_without_code


def _stored(sheet: Sheet, number: int) -> Reading:
    """Return the stored answers as a submission without errors."""
    fields = sheet.pages[_page_number(sheet, str(number))]
    answers = dict(sheet.answers)
    shown = answering.settle(sheet, fields, dict(answers))
    return Reading(answers, shown, faults={}, uploads={})


def _piping(visit: Visit, sheet: Sheet, row: Row) -> Piping:
    project = sheet.project

    def survey_link(form: str) -> str:
        if form not in project.surveys:
            return ""
        event = project.event_by_id[sheet.place.event_id]
        repeats = project.repeats_event(event)
        place = Place(event.event_id, form, sheet.response.place.instance if repeats else 1)
        with visit.store.reading() as db:
            known = responses.peek(db, project.id, sheet.record.name, place)
        return survey_url(visit.base_url, known.hash) if known else ""

    def file_link(name: str) -> str:
        return f"{survey_url(visit.base_url, sheet.response.hash)}&__file={name}"

    return Piping(project, row, survey_link, file_link)


def _form(
    visit: Visit, sheet: Sheet, reading: Reading, *, number: int, status: int = 200
) -> Answer:
    texts = page_texts(french=sheet.project.is_french)
    piping = _piping(visit, sheet, sheet.row(reading.answers))
    number = _page_number(sheet, str(number))
    fields = sheet.pages[number]
    return page(
        "form.html",
        status=status,
        leads_to=sheet.survey.end_survey_redirect_url,
        **_frame(sheet, "open", sheet.survey.title or sheet.project.label(sheet.form)),
        questions=questions(sheet, fields, reading, piping=piping, page_texts=texts),
        faults=reading.faults,
        instructions=piping.html(sheet.survey.instructions) if number == 0 else "",
        number=number,
        pages=len(sheet.pages),
        saves=sheet.survey.save_and_return,
        code=sheet.response.return_code
        if sheet.response.status == 1 and _needs_code(sheet)
        else "",
        action=f"/surveys/?s={sheet.response.hash}",
    )


def _frame(sheet: Sheet, state: str, title: str) -> dict[str, Any]:
    texts = page_texts(french=sheet.project.is_french)
    return {
        "page_texts": texts,
        "title": title,
        "project": sheet.project.title,
        "survey": sheet.form,
        "state": state,
    }


def _message(sheet: Sheet, state: str, phrase: str) -> Answer:
    texts = page_texts(french=sheet.project.is_french)
    return page(
        "message.html", **_frame(sheet, state, texts[f"{phrase}_title"]), text=texts[phrase]
    )


def _thanks(visit: Visit, sheet: Sheet) -> Answer:
    texts = page_texts(french=sheet.project.is_french)
    if sheet.survey.end_survey_redirect_url:
        return Answer(
            b"", "text/html", 303, headers={"Location": sheet.survey.end_survey_redirect_url}
        )
    link = survey_url(visit.base_url, sheet.response.hash)
    return page(
        "message.html",
        **_frame(sheet, "completed", texts["thanks_title"]),
        html=_piping(visit, sheet, sheet.row(sheet.answers)).html(sheet.survey.acknowledgement),
        text=texts["thanks"],
        pdf=f"{link}&__pdf=1" if sheet.survey.offer_pdf else "",
    )


def _saved(visit: Visit, sheet: Sheet) -> Answer:
    texts = page_texts(french=sheet.project.is_french)
    return page(
        "message.html",
        **_frame(sheet, "saved", texts["saved_title"]),
        text=texts["saved"],
        code=sheet.response.return_code,
        link=survey_url(visit.base_url, sheet.response.hash),
    )


def _ask_code(sheet: Sheet, *, wrong: bool) -> Answer:
    texts = page_texts(french=sheet.project.is_french)
    return page(
        "code.html",
        status=403 if wrong else 200,
        **_frame(sheet, "code", texts["code_title"]),
        wrong=wrong,
        action=f"/surveys/?s={sheet.response.hash}",
    )


def _unknown() -> Answer:
    texts = page_texts(french=True)
    return page(
        "message.html",
        status=404,
        page_texts=texts,
        title=texts["unknown_title"],
        state="unknown",
        text=texts["unknown"],
        project="",
        survey="",
    )


def _file(db: sqlite3.Connection, sheet: Sheet, name: str) -> Answer:
    """Return a document of the same record, linked from a label of the survey."""
    linked = any(f"[{name}:link]" in f.field_label for page_ in sheet.pages for f in page_)
    own = name in {f.field_name for page_ in sheet.pages for f in page_}
    answer = next((a[name] for a in sheet.record.entries.values() if name in a), None)
    if not (linked or own) or not isinstance(answer, dict):
        return _unknown()
    document = documents.get(db, sheet.project.id, int(answer["doc"]))
    if document is None:
        return _unknown()
    found = file_answer(document)
    return replace(found, headers={"Content-Disposition": "attachment"})


def _pdf(sheet: Sheet) -> Answer:
    # Imported when first needed, for the same reason as in the API.
    from sandbox.redcap.surveys import pdf

    return Answer(pdf.render(sheet.project, [sheet.form], [sheet.record]), "application/pdf")


def _note(db: sqlite3.Connection, sheet: Sheet) -> None:
    history.add(
        db,
        sheet.project.id,
        RESPONDENT,
        kind="record_edit",
        action=f"Update Response {sheet.record.name}",
        record=sheet.record.name,
    )


def show_queue(visit: Visit) -> Answer:
    """Show the surveys that a record's queue currently offers."""
    with visit.store.writing() as db:
        owner = responses.queue_owner(db, visit.hash)
        if owner is None:
            return _unknown()
        project = visit.store.project(db, owner[0])
        record = records.find(db, project.id, owner[1])
        if record is None:
            return _unknown()
        items = [
            {"title": project.surveys[form].title or project.label(form), "done": found.status == 2,
             "url": survey_url(visit.base_url, found.hash)}
            for form, place in _queued(db, project, record)
            for found in [responses.obtain(db, project.id, record.name, place)]
        ]  # fmt: skip
    texts = page_texts(french=project.is_french)
    return page(
        "queue.html",
        page_texts=texts,
        title=texts["queue_title"],
        project=project.title,
        survey="",
        state="queue",
        items=items,
        link=queue_url(visit.base_url, visit.hash),
    )


def _queued(db: sqlite3.Connection, project: Project, record: Record) -> list[tuple[str, Place]]:
    found = []
    for entry in project.queue:
        event = project.event_by_name.get(entry.unique_event_name)
        if event is None or entry.form_name not in project.surveys:
            continue
        if entry.after_form:
            before = Place(event.event_id, entry.after_form)
            known = responses.peek(db, project.id, record.name, before)
            if known is None or known.status != 2:
                continue
        if condition(entry.condition, project)(Row(record, Place(event.event_id))):
            found.append((entry.form_name, Place(event.event_id, entry.form_name)))
    return found
