"""The diagrams in the documentation."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

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
