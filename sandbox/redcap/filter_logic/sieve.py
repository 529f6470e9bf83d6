"""
What a record must hold for logic to be true, as far as a text search can tell.
"""

from sandbox.redcap.filter_logic.nodes import Binary, Literal, Node, Ref
from sandbox.redcap.filter_logic.parser import parse
from sandbox.redcap.filter_logic.values import to_number
from sandbox.redcap.project import Project


def required_texts(logic: str, project: Project) -> list[tuple[str, str]]:
    """
    Fields and texts of ``[field] = 'text'`` that all of *logic* hangs on.

    Only what cannot hold otherwise: no numbers (``'01' = '1'``), no blanks, no
    choices of a checkbox. The caller has compiled the logic already.
    """
    if not logic.strip():
        return []
    return list(_required(parse(logic), project))


def _required(node: Node, project: Project) -> list[tuple[str, str]]:
    match node:
        case Binary(operator="and", left=left, right=right):
            return _required(left, project) + _required(right, project)
        case Binary(operator="=", left=Ref() as ref, right=Literal(text=text)):
            return [(ref.name, text)] if _is_plain(ref, text, project) else []
        case Binary(operator="=", left=Literal(text=text), right=Ref() as ref):
            return [(ref.name, text)] if _is_plain(ref, text, project) else []
        case _:
            return []


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
