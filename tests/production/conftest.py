"""Tests with production's real programs. They run only if their folder is named: `make test-*`."""

import signal
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Exclude this folder from a run of all tests."""
    named = [(config.invocation_params.dir / arg.split("::")[0]).resolve() for arg in config.args]
    inside = any(path.is_relative_to(HERE) for path in named)
    return None if inside or not collection_path.is_relative_to(HERE) else True


def pytest_sessionstart() -> None:
    """On SIGTERM, stop what the tests started: fixtures end as after Ctrl-C."""

    def end(*_: object) -> None:
        # Once: a second signal must not interrupt the cleanup.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pytest.exit("terminated by SIGTERM", 128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print once why tests were skipped, not once for each of them."""
    skipped = terminalreporter.stats.get("skipped", [])
    for reason in sorted({report.longrepr[2].removeprefix("Skipped: ") for report in skipped}):
        terminalreporter.write_line(f"Skipped: {reason}")
