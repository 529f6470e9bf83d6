"""Piping: answers inserted into text, such as ``Dear [first_name]``.

A reference in brackets is replaced by its value; unknown references are kept as written.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from markupsafe import Markup, escape

from sandbox.redcap.design.dictionary import STATUS_OPTIONS
from sandbox.redcap.design.project import Project
from sandbox.redcap.errors import ApiError
from sandbox.redcap.filter_logic.evaluate import Row, locator
from sandbox.redcap.filter_logic.nodes import Ref
from sandbox.redcap.filter_logic.parser import reference
from sandbox.redcap.records.storage import Answer
from sandbox.redcap.surveys import markup

_BRACKETS = re.compile(r"(?:\[[^\[\]]+\])+")
BLANK = "______"
"""Placeholder of a missing answer."""


@dataclass(frozen=True)
class Piping:
    """The source of the answers, and of links.

    ``survey_link`` returns the URL of another survey of the same record, or
    an empty string; ``file_link`` that of a document.
    """

    project: Project
    row: Row
    survey_link: Callable[[str], str] = lambda form: ""
    file_link: Callable[[str], str] = lambda name: ""

    def html(self, text: str) -> Markup:
        """Return *text* with answers inserted, as safe HTML; markup in answers is escaped."""
        return markup.safe(_BRACKETS.sub(lambda match: self._piece(match.group()), text))

    def text(self, text: str) -> str:
        """Return *text* with answers inserted, as plain text."""
        return _BRACKETS.sub(lambda m: self.value(m.group()) or "", markup.plain(text))

    def _piece(self, brackets: str) -> Markup:
        ref = _read(brackets)
        if ref is not None and ref.name == "survey-link":
            return _anchor(self.survey_link(ref.modifier), self.project.label(ref.modifier))
        if ref is not None and ref.modifier == "link":
            return _anchor(self.file_link(ref.name), self.value(f"[{ref.name}]") or BLANK)
        found = self.value(brackets)
        return escape(brackets if found is None else found or BLANK)

    def value(self, brackets: str) -> str | None:
        """Return the value of ``[event][field]`` for this row; None for an unknown name."""
        ref = _read(brackets)
        if ref is None:
            return None
        smart = {"record-name": self.row.record.name, "user-name": self.row.username}
        if ref.name in smart:
            return smart[ref.name]
        if ref.name in {"survey-url", "survey-link"}:
            return self.survey_link(ref.modifier)
        dictionary = self.project.dictionary
        form = dictionary.form_of(ref.name)
        if form is None or (ref.event and ref.event not in self.project.event_by_name):
            return None
        if ref.name == dictionary.record_id:
            return self.row.record.name
        event = self.project.event_by_name.get(ref.event)
        place = locator(self.project, form, event=event, instance=ref.instance)(self.row)
        answer = self.row.record.answers(place).get(ref.name, "")
        field = dictionary.by_name.get(ref.name)
        options = STATUS_OPTIONS if field is None else field.options
        if field is None:
            answer = answer or "0"
        return _display(answer, options, ref)


def _display(answer: Answer, options: Mapping[str, str], ref: Ref) -> str:
    if isinstance(answer, dict):
        return str(answer["name"])
    if isinstance(answer, list):
        chosen = [code for code in answer if ref.code in {"", code}]
        return ", ".join(options.get(code, code) for code in chosen)
    return answer if ref.modifier == "value" else options.get(answer, answer)


def _anchor(url: str, label: str) -> Markup:
    if not url:
        return escape(label)
    return Markup('<a href="{}">{}</a>').format(url, label)


def _read(brackets: str) -> Ref | None:
    try:
        return reference(brackets)
    except ApiError:
        return None
