"""The program ``amarre`` as a whole."""

import os

import pytest
from click.testing import CliRunner

from mesh import cli


@pytest.mark.parametrize(
    "variable", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir", "SSLKEYLOGFILE"]
)
def test_of_other_programs(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Variables that another program left in the shell and that libraries obey have no effect.

    With a folder for shared metrics, the fork server died; with a key log, the secrets of TLS
    connections would be in a file.
    """
    monkeypatch.setenv(variable, "/tmp/left-by-another-program")
    CliRunner().invoke(cli.main, ["status", "--help"])

    assert variable not in os.environ
