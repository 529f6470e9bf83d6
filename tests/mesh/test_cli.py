"""The program ``amarre`` as a whole."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mesh import cli
from mesh.chassis.config import GRPC_EXPERIMENTS
from mesh.render import registry


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


_SHOWS_WHAT_GRPC_READS = """
import os, sys
from mesh import cli

class Imports:
    def find_spec(self, name, *_):
        if name == "grpc":
            print(os.environ.get("GRPC_EXPERIMENTS"), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Imports())
cli.main()
"""


_IS_INTERRUPTED = """
import os, signal, sys
from mesh import __main__

class Imports:
    def find_spec(self, name, *_):
        if name == "mesh.local":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Imports())
__main__.main()
"""


def test_interrupted_while_modules_are_imported() -> None:
    """Ctrl-C right after the start of the command ends it without a traceback."""
    done = subprocess.run(
        ["env", "--default-signal=INT", sys.executable, "-c", _IS_INTERRUPTED, "up"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert 130 == done.returncode
    assert not done.stderr


def test_characters_that_the_terminal_lacks(tmp_path: Path) -> None:
    """Output in an encoding without some characters has question marks in their place."""
    command = [sys.executable, "-m", "mesh.cli", "doctor", "--data", str(tmp_path / "a [/b] é")]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ascii_only)

    assert "a [/b] ?" in done.stdout
    assert not done.stderr


@pytest.mark.parametrize("own", ["", "event_engine_client"])
def test_grpc_experiments(own: str, tmp_path: Path) -> None:
    """
    gRPC reads its experiments when the runner, from which processes are forked, imports it.

    The user's own variable wins.
    """
    given = {key: value for key, value in os.environ.items() if key != "GRPC_EXPERIMENTS"}
    command = [sys.executable, "-c", _SHOWS_WHAT_GRPC_READS, "up", "--data", str(tmp_path)]
    printed = subprocess.check_output(
        command, env=given | ({"GRPC_EXPERIMENTS": own} if own else {}), text=True
    )

    assert (own or GRPC_EXPERIMENTS) == printed.strip()


@pytest.mark.parametrize("arguments", [["--help"], ["unknown"]])
def test_targets_of_render(arguments: list[str]) -> None:
    """
    The help of ``amarre render``, and the error for an unknown target, list every target.
    """
    printed = CliRunner().invoke(cli.main, ["render", *arguments]).output

    assert set(registry.TARGETS) <= set(re.findall(r"\w+", printed))
