"""The wheel, for another team that only installs it."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mesh.contract import policy

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
USE = """
import sys
from amarre.survey.v1 import survey_service_pb2, survey_service_pb2_grpc
from mesh.chassis.channel import channel
from mesh.contract import policy
assert survey_service_pb2_grpc.__file__.startswith(sys.argv[1]), survey_service_pb2_grpc.__file__
assert channel.__module__ == "mesh.chassis.channel"
print(len(list(policy.load())))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    out = tmp_path_factory.mktemp("dist")
    command = [str(UV), "build", "--wheel", "--no-build-isolation", "--offline", "-q"]
    subprocess.run(
        [*command, "--python", sys.executable, "-o", str(out), str(ROOT)], check=True, timeout=120
    )
    return next(out.glob("*.whl"))


def test_stubs_and_types_are_inside(wheel: Path) -> None:
    """
    Generated code, its types, the contract's image, the study and the runbooks are in the wheel.
    """
    names = set(zipfile.ZipFile(wheel).namelist())

    for area, package in (("survey", "survey"), ("auth", "auth"), ("health", "health")):
        for suffix in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi"):
            assert f"amarre/{area}/v1/{package}_service{suffix}" in names
    assert "amarre/contract.binpb" in names
    assert "amarre/py.typed" in names
    assert "buf/validate/validate_pb2.py" in names
    assert "survey_svc/profiles/amarre.yaml" in names
    assert "mesh/console/runbooks/service-down.md" in names
    assert any(name.startswith("sandbox/redcap/study/") for name in names)


def test_installed_alone(wheel: Path, tmp_path: Path) -> None:
    """
    From another folder, with only the wheel on the path, the stubs and the channel can be imported.
    """
    subprocess.run(
        [
            str(UV),
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--offline",
            "--target",
            str(tmp_path),
            wheel,
        ],
        check=True,
        timeout=120,
    )

    used = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 0 == used.returncode, used.stderr
    assert len(list(policy.load())) == int(used.stdout)


@pytest.fixture(scope="module")
def client(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the bare wheel."""
    folder = tmp_path_factory.mktemp("client")
    venv.create(folder, with_pip=False, symlinks=True)
    install = [str(UV), "pip", "install", "-q", "-c", str(ROOT / "requirements.lock")]
    python = str(folder / "bin/python")
    subprocess.run([*install, "--python", python, str(wheel)], check=True, timeout=300)
    return folder


def test_command_of_the_bare_wheel(client: Path) -> None:
    """
    Without the extra that it needs, the command says which one to install.
    """
    used = subprocess.run(
        [client / "bin/amarre", "--help"], capture_output=True, text=True, timeout=60, check=False
    )

    assert 1 == used.returncode
    assert "Install amarre-mesh[local] to use this command: click is missing.\n" == used.stderr


def test_light_client(client: Path, live: Any, tmp_path: Path) -> None:
    """
    The bare wheel installs at most 15 packages and 60 MB, and the snippet of the README runs with
    it.
    """
    (tmp_path / ".amarre").symlink_to(Path(live["pki"]["ca"]).parents[2])
    (snippet,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert "127.0.0.1:3003" in snippet

    used = subprocess.run(
        [client / "bin/python", "-c", snippet.replace("127.0.0.1:3003", live["grpc"]["health"])],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 0 == used.returncode, used.stderr
    assert "status" in used.stdout
    installed = list(client.glob("lib/python*/site-packages/*.dist-info"))
    files = [path for path in client.glob("lib/python*/site-packages/**/*") if path.is_file()]
    assert len(installed) <= 15, installed
    assert sum(path.stat().st_size for path in files) <= 60e6
