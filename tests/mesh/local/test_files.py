"""Writing files: whole or not at all."""

import errno
import stat
from pathlib import Path

import pytest

from mesh.local import files
from tests.mesh.local.conftest import fill


def test_written_for_the_current_user_only(tmp_path: Path) -> None:
    """A file is made with its folder, readable by its owner only, and nothing stays next to it."""
    path = tmp_path / "new" / "ready.json"
    files.write(path, "one")
    files.write(path, "two")

    assert "two" == path.read_text()
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert [path] == list(path.parent.iterdir())


def test_full_disk_keeps_the_old_content(small_disk: Path) -> None:
    """When the disk is full the old content stays, and no partial file is left next to it."""
    path = small_disk / "ready.json"
    files.write(path, "old")
    filler = fill(small_disk)

    with pytest.raises(OSError, match="space") as failure:
        files.write(path, "new" * 10_000)

    assert errno.ENOSPC == failure.value.errno
    assert "old" == path.read_text()
    assert {path, filler} == set(small_disk.iterdir())


def test_unchanged_content_is_not_written(tmp_path: Path) -> None:
    """A file that has the content already is not replaced, so that nobody reloads it."""
    path = tmp_path / "routes.yaml"
    files.write(path, "same")
    before = path.stat().st_ino

    files.write_changed(path, "same")
    assert before == path.stat().st_ino
    files.write_changed(path, "other")
    assert "other" == path.read_text()
