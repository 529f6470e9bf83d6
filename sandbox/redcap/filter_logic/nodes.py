"""The tree that logic text becomes."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Literal:
    """A number or a quoted text, as written."""

    text: str


@dataclass(frozen=True)
class Ref:
    """An answer: ``[event][field(code):modifier][instance]``."""

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
    """Two operands and ``or and = <> < <= > >= + - * / % ^`` between them."""

    operator: str
    left: "Node"
    right: "Node"


@dataclass(frozen=True)
class Call:
    """A function and its arguments; the name in lower case."""

    name: str
    arguments: tuple["Node", ...]


Node = Literal | Ref | Unary | Binary | Call


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below *node*."""
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
    """*node* and every node below it, in order of appearance."""
    yield node
    for child in children(node):
        yield from walk(child)


def refs(node: Node) -> tuple[Ref, ...]:
    """Every answer that *node* reads."""
    return tuple(part for part in walk(node) if isinstance(part, Ref))


def calls(node: Node) -> tuple[Call, ...]:
    """Every function call in *node*."""
    return tuple(part for part in walk(node) if isinstance(part, Call))
