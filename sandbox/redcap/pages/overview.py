"""Overview page of records and surveys."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from sandbox.redcap.api.operation import Answer
from sandbox.redcap.api.operations.surveys import survey_url
from sandbox.redcap.design.dictionary import STATUS_OPTIONS, status_field
from sandbox.redcap.design.project import Project
from sandbox.redcap.pages.templates import page
from sandbox.redcap.pages.texts import page_texts
from sandbox.redcap.records import storage as records
from sandbox.redcap.records.storage import Place
from sandbox.redcap.store import Store, project_ids
from sandbox.redcap.surveys import responses

PER_PAGE = 50
"""Number of records on one page."""


def show(store: Store, query: Mapping[str, str], *, base_url: str) -> Answer:
    """Show projects and their records, with form states and survey links."""
    with store.reading() as db:
        projects = [store.project(db, number) for number in project_ids(db)]
        chosen = next((p for p in projects if str(p.id) == query.get("project")), projects[0])
        number = int(query["page"]) if query.get("page", "").isdecimal() else 0
        names = list(
            islice(records.all_names(db, chosen.id), number * PER_PAGE, (number + 1) * PER_PAGE + 1)
        )
        rows = [
            {"record": record.name, "cells": _cells(store, chosen, record, base_url)}
            for record in records.stream(db, chosen.id, names=names[:PER_PAGE])
        ]
    texts = page_texts(french=chosen.is_french)
    return page(
        "overview.html",
        page_texts=texts,
        title=chosen.title or f"Project {chosen.id}",
        project="REDCap sandbox",
        survey="",
        state="overview",
        projects=[{"id": p.id, "title": p.title or f"Project {p.id}"} for p in projects],
        chosen=chosen.id,
        forms=[chosen.label(form) for form in chosen.dictionary.forms],
        rows=rows,
        number=number,
        more=len(names) > PER_PAGE,
    )


def _cells(
    store: Store, project: Project, record: records.Record, base_url: str
) -> list[list[dict[str, Any]]]:
    """Return the states of each form: several if it is filled in more than once."""
    return [
        [
            _state(store, project, record, form, place, base_url)
            for place in sorted(record.entries)
            if place.event_id in project.event_by_id and _fills(project, place, form)
        ]
        for form in project.dictionary.forms
    ]


def _fills(project: Project, place: Place, form: str) -> bool:
    event = project.event_by_id[place.event_id]
    if project.repeats_form(event, form):
        return place.instrument == form
    return not place.instrument and form in project.forms_at(event)


def _state(
    store: Store,
    project: Project,
    record: records.Record,
    form: str,
    place: Place,
    base_url: str,
) -> dict[str, Any]:
    answers = record.answers(place)
    url = ""
    if form in project.surveys:
        at = Place(place.event_id, form, place.instance)
        with store.reading() as db:
            found = responses.peek(db, project.id, record.name, at)
        if found is None:
            with store.writing() as db:
                found = responses.obtain(db, project.id, record.name, at)
        url = survey_url(base_url, found.hash)
    status = str(answers.get(status_field(form)) or "0")
    event = project.event_by_id[place.event_id].event_name if project.is_longitudinal else ""
    return {"status": status if status in STATUS_OPTIONS else "0", "url": url, "event": event,
            "instance": place.instance if place.instrument else ""}  # fmt: skip
