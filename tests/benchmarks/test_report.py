"""The page that benchmarks write."""

import json

from benchmarks.gateway_cost import FOLDER
from benchmarks.harness.report import by_process, page, table


def test_committed_page() -> None:
    """RESULTS.md is what the tool makes of results.json, so that no figure is edited by hand."""
    report = json.loads((FOLDER / "results.json").read_text())

    assert page(report) == (FOLDER / "RESULTS.md").read_text()


def test_processes() -> None:
    """The most expensive process comes first, and the sandbox last."""
    assert "auth 30, gateway 20, (redcap 90)" == by_process(
        {"gateway": 20, "redcap": 90, "auth": 30}
    )


def test_table() -> None:
    """A table has a line for the columns, a separator, and a line for each row."""
    assert "| a | b |\n| --- | --- |\n| 1 | 2.5 |\n" == table(("a", "b"), [(1, 2.5)])
