"""Parser of the logic language."""

import re
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any, cast

from lark import Lark, Token, Transformer, UnexpectedInput, UnexpectedToken
from lark.exceptions import VisitError

from sandbox.redcap.errors import ApiError
from sandbox.redcap.filter_logic.nodes import Binary, Call, Literal, Node, Ref, Unary, children

MAX_LENGTH = 100_000
MAX_DEPTH = 200
"""Limits the depth of the tree, which the evaluator walks recursively."""

_INSIDE = re.compile(
    r"\s*(?P<name>[A-Za-z][\w-]*)\s*(?:\(\s*(?P<code>[^()]+?)\s*\))?\s*(?::\s*(?P<modifier>[\w:-]+))?\s*"
)


class LogicError(ApiError):
    """The text is not valid logic; the message states the position."""


@lru_cache(maxsize=1024)
def parse(text: str) -> Node:
    """Parse logic.

    Raises:
        LogicError: The text is malformed, too long or too deeply nested.
    """
    if len(text) > MAX_LENGTH:
        raise LogicError(f"The logic is longer than {MAX_LENGTH} characters.")
    try:
        # The transformer builds our nodes while lark parses, so this is not a lark tree.
        tree = cast(Node, _LARK.parse(text))
    except UnexpectedInput as exc:
        raise LogicError(_explain(text, exc)) from exc
    except VisitError as exc:
        if isinstance(exc.orig_exc, LogicError):
            raise exc.orig_exc from exc
        raise
    _check_depth(tree)
    return tree


def _explain(text: str, exc: UnexpectedInput) -> str:
    position = exc.pos_in_stream
    ended = isinstance(exc, UnexpectedToken) and exc.token.type == "$END"
    if ended or position is None or not 0 <= position < len(text):
        return f"The logic ends unexpectedly. Unable to find next token in: {text}"
    return (
        f"The logic has a syntax error at character {position + 1}. "
        f"Unable to find next token in: {text[position:]}"
    )


def reference(text: str) -> Ref:
    """Parse a bracketed reference, ``[event][field]``, as used in labels.

    Raises:
        LogicError: It contains no field name.
    """
    return _ref(text[1:-1].split("]["))


class _Nodes(Transformer[Token, Any]):
    """Builds nodes; each method handles the grammar rule of its name."""

    def or_(self, operands: list[Node]) -> Node:
        return _balanced("or", operands)

    def and_(self, operands: list[Node]) -> Node:
        return _balanced("and", operands)

    def not_(self, operands: list[Node]) -> Node:
        return Unary("not", operands[-1])

    def negate(self, parts: list[Any]) -> Node:
        return Unary("-", parts[1]) if parts[0] == "-" else parts[1]

    def compare(self, parts: list[Any]) -> Node:
        left, operator, right = parts
        canonical = {"==": "=", "!=": "<>"}.get(str(operator), str(operator))
        return Binary(canonical, left, right)

    def chain(self, parts: list[Any]) -> Node:
        steps = zip(parts[1::2], parts[2::2], strict=True)
        node: Node = reduce(lambda left, step: Binary(str(step[0]), left, step[1]), steps, parts[0])
        return node

    def power(self, parts: list[Any]) -> Node:
        return Binary("^", parts[0], parts[-1])

    def number(self, parts: list[Token]) -> Node:
        return Literal(str(parts[0]))

    def string(self, parts: list[Token]) -> Node:
        return Literal(str(parts[0])[1:-1])

    def ref(self, parts: list[Token]) -> Node:
        return _ref([str(part)[1:-1].strip() for part in parts])

    def word(self, parts: list[Token]) -> Node:
        word = str(parts[0]).lower()
        if word not in {"true", "false"}:
            raise LogicError(
                f"The word '{parts[0]}' is neither quoted, nor in brackets, nor a function. "
                f"Unable to find next token in: {parts[0]}"
            )
        return Literal("1" if word == "true" else "0")

    def call(self, parts: list[Any]) -> Node:
        return Call(str(parts[0]).lower(), tuple(parts[1:]))


def _balanced(operator: str, operands: list[Node]) -> Node:
    """Join many operands in a balanced tree; both operators are associative."""
    while len(operands) > 1:
        pairs = [operands[i : i + 2] for i in range(0, len(operands), 2)]
        operands = [Binary(operator, *pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return operands[0]


def _ref(brackets: list[str]) -> Ref:
    event = instance = ""
    if len(brackets) > 1 and _is_instance(brackets[-1]):
        instance = brackets.pop()
    if len(brackets) > 1:
        event = brackets.pop(0)
    inside = _INSIDE.fullmatch(brackets[0])
    if len(brackets) != 1 or inside is None:
        raise LogicError(f"The logic has no field name in: [{']['.join(brackets)}]")
    found = inside.groupdict(default="")
    return Ref(found["name"], found["code"], found["modifier"], event, instance)


def _is_instance(text: str) -> bool:
    return text.isdigit() or text in {"first-instance", "last-instance", "current-instance"}


def _check_depth(tree: Node) -> None:
    """Reject a tree that is too deep for recursion, without recursing."""
    level: list[Node] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in children(node)]
        if not level:
            return
    raise LogicError(f"The logic is nested deeper than {MAX_DEPTH} levels.")


_LARK = Lark(
    (Path(__file__).parent / "grammar.lark").read_text(encoding="utf-8"),
    parser="lalr",
    transformer=_Nodes(),
)
