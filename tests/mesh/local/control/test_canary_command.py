"""What ``amarre canary status`` prints."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mesh.local.commands import control

STATUS = {"service": "survey", "weight": 10, "stable": "no calls", "canary": "no calls"}


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (
            {"state": "running", "manual": True, "verdict": "wait"},
            "survey: running, 10 %; analysis: waiting for data; promotion: manual",
        ),
        (
            {"state": "running", "manual": False, "verdict": "healthy"},
            "survey: running, 10 %; analysis: healthy; promotion: automatic",
        ),
        (
            {"state": "aborted by an operator", "manual": False, "verdict": "wait"},
            "survey: aborted by an operator, 10 %",
        ),
    ],
    ids=["too few calls", "healthy", "aborted"],
)
def test_status(
    status: dict[str, Any], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The state of a canary and, while it runs, its analysis and how it is promoted are printed.
    """
    monkeypatch.setattr(control, "_send", lambda *_, **__: [{**STATUS, **status}])

    result = CliRunner().invoke(control.canary_status, ["--data", str(tmp_path)])

    assert line == result.output.splitlines()[0]
