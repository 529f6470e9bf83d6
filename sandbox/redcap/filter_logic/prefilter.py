"""What a record must hold for logic to be true, as far as a text search can tell."""

from sandbox.redcap.design.project import Project
from sandbox.redcap.filter_logic.nodes import Binary, Literal, Node, Ref
from sandbox.redcap.filter_logic.parser import parse
from sandbox.redcap.filter_logic.values import to_number


def required_text(logic: str, project: Project) -> tuple[str, str] | None:
    """Field and text of a ``[field] = 'text'`` that all of *logic* hangs on, if there is one.

    Only what cannot hold otherwise: no numbers (``'01' = '1'``), no blanks, no
    choices of a checkbox. The caller has compiled the logic already.
    """
    return _required(parse(logic), project) if logic.strip() else None


def _required(node: Node, project: Project) -> tuple[str, str] | None:
    match node:
        case Binary(operator="and", left=left, right=right):
            return _required(left, project) or _required(right, project)
        case Binary(operator="=", left=Ref() as ref, right=Literal(text=text)):
            return (ref.name, text) if _is_plain(ref, text, project) else None
        case Binary(operator="=", left=Literal(text=text), right=Ref() as ref):
            return (ref.name, text) if _is_plain(ref, text, project) else None
        case _:
            return None


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
