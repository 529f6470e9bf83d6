"""Atomic file writes."""

import errno
import stat
from pathlib import Path

import pytest

from mesh.local import files
from tests.mesh.local.conftest import fill


def test_written_for_the_current_user_only(tmp_path: Path) -> None:
    """A file is created with its folder, readable only by its owner, without leftovers."""
    path = tmp_path / "new" / "ready.json"
    files.write(path, "one")
    files.write(path, "two")

    assert "two" == path.read_text()
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert [path] == list(path.parent.iterdir())


def test_full_disk_keeps_the_old_content(small_disk: Path) -> None:
    """With a full disk, the old content remains, and no partial file is left behind."""
    path = small_disk / "ready.json"
    files.write(path, "old")
    filler = fill(small_disk)

    with pytest.raises(OSError, match="space") as failure:
        files.write(path, "new" * 10_000)

    assert errno.ENOSPC == failure.value.errno
    assert "old" == path.read_text()
    assert {path, filler} == set(small_disk.iterdir())


def test_unchanged_content_is_not_written(tmp_path: Path) -> None:
    """A file with the same content is not replaced, so that nothing reloads it."""
    path = tmp_path / "routes.yaml"
    files.write(path, "same")
    before = path.stat().st_ino

    files.write_changed(path, "same")
    assert before == path.stat().st_ino
    files.write_changed(path, "other")
    assert "other" == path.read_text()
