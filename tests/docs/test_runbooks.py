"""Runbooks name dashboards and panels that exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.contract import policy
from mesh.render import dashboards
from mesh.render.registry import ROOT

BOARDS = {
    board.title.removeprefix("AMARRE / "): {panel.title for _, row in board.rows for panel in row}
    for board in dashboards.boards()
}
SERVICES = [service.name for service in policy.load().services]
PAGES = sorted((ROOT / "docs/runbooks").glob("*.md"))
_PANELS = re.compile(r"panels? (\*[^.:]+?) of the dashboard \*([^*]+)\*")
_ITALIC = re.compile(r"(?<!\*)\*([^*\n]+)\*(?!\*)")
_ELSEWHERE = re.compile(r"(?:page|button) \*[^*]+\*")
"""Pages of the console and of Prometheus, and buttons of the console."""


def faults(text: str) -> Iterator[str]:
    """Yield each name in italics that is not a panel of the named dashboard."""
    for panels, title in _PANELS.findall(text):
        # SERVICE is a placeholder, as in commands.
        for name in {title.replace("SERVICE", service) for service in SERVICES}:
            if name not in BOARDS:
                yield f"no dashboard {name}"
                continue
            for panel in set(_ITALIC.findall(panels)) - BOARDS[name]:
                yield f"the dashboard {name} has no panel {panel}"
    for name in _ITALIC.findall(_ELSEWHERE.sub("", _PANELS.sub("", text))):
        if name not in BOARDS:
            yield f"{name} is neither a panel nor a dashboard"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_dashboards(page: Path) -> None:
    """
    Every dashboard that a runbook names exists and has the panels that it names.
    """
    assert [] == list(faults(page.read_text()))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("the panel *Up* of the dashboard *Services*", "no dashboard Services"),
        ("the panel *Up* of the dashboard *System*", "the dashboard System has no panel Up"),
        ("(*Refusals*)", "Refusals is neither a panel nor a dashboard"),
        ("the panel *Calls per second* of the dashboard *Service SERVICE*", None),
        ("the dashboard *System*, the button *Restart*", None),
    ],
)
def test_negative_control(text: str, fault: str | None) -> None:
    """
    A missing dashboard or panel is found.
    """
    assert fault in [*faults(text), None]
    assert (fault is None) == (not list(faults(text)))
