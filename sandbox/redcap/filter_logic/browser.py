"""Logic for the browser: the syntax tree as JSON, with constants folded."""

import json
from collections.abc import Collection

from sandbox.redcap.design.project import Project
from sandbox.redcap.filter_logic.evaluate import Row, compile_logic
from sandbox.redcap.filter_logic.nodes import Binary, Call, Literal, Node, Ref, Unary, refs, walk
from sandbox.redcap.filter_logic.parser import parse
from sandbox.redcap.filter_logic.values import is_true, to_text

IN_BROWSER = frozenset({"if", "isblankormissingcode", "isblanknotmissingcode", "contains"})
"""The functions implemented in the page's script; a test compares both lists."""


def browser_logic(text: str, project: Project, on_page: Collection[str], row: Row) -> str:
    """Return a field's branching logic as JSON for the page's script.

    Returns:
        An empty string if the logic does not depend on the page's answers, or
        calls a function that the script lacks; then only the server evaluates it.
    """
    if not text.strip():
        return ""
    tree = parse(text)
    live = [ref for ref in refs(tree) if _is_live(ref, on_page)]
    unknown = {part.name for part in walk(tree) if isinstance(part, Call)} - IN_BROWSER
    if not live or unknown:
        return ""
    return json.dumps(_json(tree, project, on_page, row), separators=(",", ":"))


def _is_live(ref: Ref, on_page: Collection[str]) -> bool:
    return ref.name in on_page and not (ref.event or ref.instance or ref.modifier)


def _json(node: Node, project: Project, on_page: Collection[str], row: Row) -> object:
    if not any(_is_live(ref, on_page) for ref in refs(node)):
        value = compile_logic(node, project)(row)
        return is_true(value) if isinstance(value, bool) else to_text(value)
    match node:
        case Ref(name=name, code=code):
            return {"field": name, "code": code} if code else {"field": name}
        case Unary(operator=operator, operand=operand):
            return [operator, _json(operand, project, on_page, row)]
        case Binary(operator=operator, left=left, right=right):
            return [
                operator,
                _json(left, project, on_page, row),
                _json(right, project, on_page, row),
            ]
        case Call(name=name, arguments=arguments):
            return [name, *(_json(argument, project, on_page, row) for argument in arguments)]
        case Literal(text=text):
            return text
