"""Telemetry in a terminal: what clients sent controls neither the terminal nor its lines."""

import pytest

from mesh.console.terminal import tables
from tests.mesh.console.conftest import Running
from tests.mesh.console.telemetry import Batch, logs
from tests.mesh.console.terminal.test_commands import run

HOSTILE = "a\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\r\n10:00:00.000  info     auth  forged\0"


async def test_commands(running: Running) -> None:
    """Escape sequences, bidirectional overrides and line breaks of a sender are shown as text."""
    batch = Batch()
    trace = batch.span("survey", HOSTILE, url__path=HOSTILE).trace_id
    await running.take("traces", batch.request)
    await running.take("logs", logs("survey", HOSTILE, path=HOSTILE))

    for arguments in (("logs",), ("traces",), ("traces", trace.hex())):
        shown = (await run(running, *arguments)).output
        assert "gnp.exe" in shown
        assert not [c for c in shown if not (c.isprintable() or c == "\n")]
        assert not [line for line in shown.splitlines() if line.startswith("10:00:00.000")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("é ✓ 日本", "é ✓ 日本"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\u202e", "\\u202e"),
        ("a\r\nb", "a\\r\n    b"),
        ("\ud800", "\\ud800"),
        ("a\tb", "a\tb"),
    ],
)
def test_text(text: str, shown: str) -> None:
    """Ordinary text is unchanged; everything else is escaped."""
    assert tables.printable(text) == shown
