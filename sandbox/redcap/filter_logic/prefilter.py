"""Necessary conditions of a filter that an index can check."""

from dataclasses import dataclass

from sandbox.redcap.design.project import Project
from sandbox.redcap.filter_logic.nodes import Binary, Call, Literal, Node, Ref
from sandbox.redcap.filter_logic.parser import parse
from sandbox.redcap.filter_logic.values import to_number


@dataclass(frozen=True)
class Required:
    """A field and values, one of which some row of the record must have, ignoring case."""

    field: str
    texts: frozenset[str]


def required(logic: str, project: Project) -> Required | None:
    """Return a condition implied by *logic*; None if an index cannot help.

    Recognises ``[field] = 'text'`` and ``lower([field]) = 'text'``, joined by ``and`` and, for
    one field, by ``or``. Ignores comparisons with numbers (``'01' = '1'``), blanks and checkbox
    choices, which other stored values satisfy too. Expects logic that compiles.
    """
    return _required(parse(logic), project) if logic.strip() else None


def _required(node: Node, project: Project) -> Required | None:
    match node:
        case Binary(operator="and", left=left, right=right):
            return _required(left, project) or _required(right, project)
        case Binary(operator="or", left=left, right=right):
            first, second = _required(left, project), _required(right, project)
            if first is None or second is None or first.field != second.field:
                return None
            return Required(first.field, first.texts | second.texts)
        case Binary(operator="=", left=left, right=Literal(text=text)):
            return _compared(left, text, project)
        case Binary(operator="=", left=Literal(text=text), right=right):
            return _compared(right, text, project)
        case _:
            return None


def _compared(node: Node, text: str, project: Project) -> Required | None:
    match node:
        case Ref() as ref:
            pass
        # The index folds the case of ASCII only, the function that of all letters.
        case Call(name="lower", arguments=(Ref() as ref,)) if text.isascii():
            pass
        case _:
            return None
    return Required(ref.name, frozenset({text})) if _is_plain(ref, text, project) else None


def _is_plain(ref: Ref, text: str, project: Project) -> bool:
    field = project.dictionary.by_name.get(ref.name)
    return (
        field is not None
        and ref.name != project.dictionary.record_id
        and not field.is_checkbox
        and not field.is_file
        and not ref.modifier
        and text != ""
        and to_number(text) is None
    )
