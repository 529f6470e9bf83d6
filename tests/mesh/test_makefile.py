"""The Makefile."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATE = """
import pathlib
image = pathlib.Path("protos/gen/amarre/contract.binpb")
image.parent.mkdir(parents=True, exist_ok=True)
image.write_text(" ".join(sorted(p.stem for p in pathlib.Path("protos").glob("amarre/**/*.proto"))))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile, two contracts, and programs that record what is generated."""
    for folder in ("a", "b"):
        (tmp_path / "protos/amarre" / folder).mkdir(parents=True)
        (tmp_path / "protos/amarre" / folder / f"{folder}.proto").touch()
    (tmp_path / "protos/generate.py").write_text(GENERATE)
    (tmp_path / "mesh/local").mkdir(parents=True)
    (tmp_path / "mesh/local/bootstrap.py").touch()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    (tmp_path / ".venv/.installed").touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


def test_changed_set_of_contracts(checkout: Path) -> None:
    """
    Code is generated again when a contract is added or removed, and only then.
    """
    image = checkout / "protos/gen/amarre/contract.binpb"

    def made() -> tuple[str, int]:
        subprocess.run(["make", "-s", image.relative_to(checkout)], cwd=checkout, check=True)
        return image.read_text(), image.stat().st_mtime_ns

    def age() -> None:
        """Let a minute pass."""
        for path in (checkout, *checkout.rglob("*")):
            at = path.lstat().st_mtime_ns - 60 * 10**9
            os.utime(path, ns=(at, at), follow_symlinks=False)

    first = made()
    age()
    again = made()
    (checkout / "protos/amarre/b/b.proto").unlink()
    without = made()
    age()
    (checkout / "protos/amarre/b/c.proto").touch()

    assert ("a b", "a b", "a", "a c") == (first[0], again[0], without[0], made()[0])
    assert first[1] - again[1] == 60 * 10**9


def test_help() -> None:
    """
    The help lists every target.
    """
    (phony,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    printed = subprocess.check_output(["make", "-s", "-C", ROOT, "help"], text=True)

    assert set(phony.split()) == set(re.findall(r"^  make ([a-z-]+) +[A-Z]", printed, re.MULTILINE))
