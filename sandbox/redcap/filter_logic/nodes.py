"""Nodes of the logic syntax tree."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Literal:
    """A number or a quoted string, as written."""

    text: str


@dataclass(frozen=True)
class Ref:
    """A reference to an answer: ``[event][field(code):modifier][instance]``."""

    name: str
    code: str = ""
    modifier: str = ""
    event: str = ""
    instance: str = ""


@dataclass(frozen=True)
class Unary:
    """``not x`` or ``-x``."""

    operator: str
    operand: "Node"


@dataclass(frozen=True)
class Binary:
    """A binary operation: ``or and = <> < <= > >= + - * / % ^``."""

    operator: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True)
class Call:
    """A function call; the name is in lower case."""

    name: str
    arguments: tuple["Node", ...]


Node = Literal | Ref | Unary | Binary | Call


def children(node: Node) -> tuple[Node, ...]:
    """Return the children of *node*."""
    match node:
        case Unary(operand=operand):
            return (operand,)
        case Binary(left=left, right=right):
            return (left, right)
        case Call(arguments=arguments):
            return arguments
        case Literal() | Ref():
            return ()


def walk(node: Node) -> Iterator[Node]:
    """Yield *node* and its descendants, in source order."""
    yield node
    for child in children(node):
        yield from walk(child)


def refs(node: Node) -> tuple[Ref, ...]:
    """Return every answer that *node* refers to."""
    return tuple(part for part in walk(node) if isinstance(part, Ref))


def calls(node: Node) -> tuple[Call, ...]:
    """Return every function call in *node*."""
    return tuple(part for part in walk(node) if isinstance(part, Call))
