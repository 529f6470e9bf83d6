"""Every diagram renders: Mermaid draws it in a real browser."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error

from tests.docs.diagrams import Diagram, every
from tests.e2e.conftest import NODE, browser, needs, screenshots

__all__ = ["browser", "screenshots"]

MERMAID = NODE / "mermaid/dist/mermaid.min.js"
DIAGRAMS = list(every())
Draw = Callable[[str], str]

pytestmark = [pytest.mark.browser, needs(MERMAID)]


@pytest.fixture(scope="module")
def draw(browser: Browser, screenshots: Path) -> Iterator[Draw]:
    """Draw a diagram; return its SVG, or raise Mermaid's error."""
    page = browser.new_page()
    page.set_content("<!doctype html><title>diagrams</title><body></body>")
    page.add_script_tag(path=MERMAID)
    page.evaluate("mermaid.initialize({startOnLoad: false, suppressErrorRendering: true})")
    drawn = 0

    def render(text: str) -> str:
        nonlocal drawn
        drawn += 1
        script = "async ([id, text]) => (await mermaid.render(id, text)).svg"
        svg: str = page.evaluate(script, [f"diagram{drawn}", text])
        (screenshots / f"diagram-{drawn}.svg").write_text(svg)
        return svg

    yield render
    page.close()


@pytest.mark.parametrize("diagram", DIAGRAMS, ids=str)
def test_renders(draw: Draw, diagram: Diagram) -> None:
    """
    A diagram of the documentation renders.
    """
    svg = draw(diagram.text)

    assert svg.startswith("<svg")
    assert "Syntax error" not in svg


@pytest.mark.parametrize(
    "text",
    ["flowchart LR\n  a -->", "sequenceDiagram\n  A->B hello", "flowcart LR\n  a --> b", ""],
    ids=["no end", "no colon", "no such kind", "nothing"],
)
def test_broken(draw: Draw, text: str) -> None:
    """
    A broken diagram does not render.
    """
    with pytest.raises(Error):
        draw(text)


def test_all_found() -> None:
    """
    The pages have their diagrams: components, three deployments, data flow, flows.
    """
    pages = [diagram.page for diagram in DIAGRAMS]
    assert 3 == pages.count("docs/explanation/deployment.md")
    assert 2 == pages.count("docs/explanation/data-flow.md")
    assert 7 == pages.count("docs/explanation/flows.md")
    assert 2 <= pages.count("docs/explanation/architecture.md")
