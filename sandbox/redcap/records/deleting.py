"""Deletion of a part of a record: events, a form, an instance of either."""

import sqlite3
from dataclasses import dataclass

from sandbox.redcap.design.project import Project
from sandbox.redcap.records import storage as records
from sandbox.redcap.records.storage import Answers


@dataclass(frozen=True)
class Part:
    """A part of a record: an event, a form, or an instance of either."""

    events: frozenset[int]
    """Numbers of the events."""
    form: str
    instance: int | None

    def delete(self, db: sqlite3.Connection, project: Project, name: str) -> None:
        """Delete this part of a record, and the record itself if nothing is left."""
        found = records.find(db, project.id, name)
        for place, answers in (found.entries if found else {}).items():
            if place.event_id not in self.events:
                continue
            if self.instance is not None and place.instance != self.instance:
                continue
            if not self.form or place.instrument == self.form:
                records.delete_entry(db, project.id, name, place)
            elif not place.instrument:
                records.write_entry(db, project.id, name, place, self._without(project, answers))
        if records.find(db, project.id, name) is None:
            records.delete(db, project.id, name)

    def _without(self, project: Project, answers: Answers) -> Answers:
        form_of = project.dictionary.form_of
        return {k: v for k, v in answers.items() if form_of(k) != self.form}
