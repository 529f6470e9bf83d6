"""The diagrams in the documentation."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from mesh.render.registry import ROOT

_BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FOLDERS = ("docs", "mesh", "sandbox", "benchmarks")


@dataclass(frozen=True)
class Diagram:
    """One diagram: its page, the preceding title, its text."""

    page: str
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {self.title}"


def every() -> Iterator[Diagram]:
    """Yield the diagrams of all pages."""
    pages = [ROOT / "README.md"]
    for folder in _FOLDERS:
        pages += sorted((ROOT / folder).rglob("*.md"))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for block in _BLOCK.finditer(text):
            titles = _TITLE.findall(text[: block.start()])
            yield Diagram(str(page.relative_to(ROOT)), titles[-1], block[1])


@dataclass(frozen=True)
class Message:
    """One call in a sequence diagram: caller, callee and message; responses are omitted."""

    caller: str
    callee: str
    label: str


def messages(diagram: Diagram) -> list[Message]:
    """Return the calls of a sequence diagram in order."""
    found = re.findall(r"^\s*([\w-]*\w)->>([\w-]+): (.+)$", diagram.text, re.MULTILINE)
    return [Message(*one) for one in found]


def of(page: str, title: str) -> Diagram:
    """Return the diagram below *title* on *page*."""
    (found,) = [d for d in every() if (d.page, d.title) == (page, title)]
    return found


def edges(diagram: Diagram, names: Mapping[str, str]) -> set[tuple[str, str]]:
    """
    Return the arrows of a flowchart, between nodes called as *names* maps their ids.

    Labels are dropped, ``a & b --> c`` is two arrows, and an arrow within one node is none.
    """
    found = set()
    for line in diagram.text.splitlines():
        nodes = [_ids(part, names) for part in _ARROW.split(line.strip())]
        for sources, targets in pairwise(nodes):
            found |= {(s, t) for s in sources for t in targets if s != t}
    return found


_ARROW = re.compile(r" (?:--|-\.) [^>]*?(?:-->|\.->) | (?:-->|-\.->) ")


def _ids(nodes: str, names: Mapping[str, str]) -> list[str]:
    bare = [re.sub(r"[\[(].*", "", node).strip() for node in nodes.split(" & ")]
    return [names.get(name, name) for name in bare]
