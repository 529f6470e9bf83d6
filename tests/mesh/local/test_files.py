"""Atomic file writes."""

import errno
import os
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
    """
    With a full disk, the error names the file, the old content remains, and no partial file is
    left behind.
    """
    path = small_disk / "ready.json"
    files.write(path, "old")
    filler = fill(small_disk)

    with pytest.raises(OSError, match="space") as failure:
        files.write(path, "new" * 10_000)

    assert errno.ENOSPC == failure.value.errno
    assert str(path) in str(failure.value)
    assert "old" == path.read_text()
    assert {path, filler} == set(small_disk.iterdir())


def test_files_that_belong_together(small_disk: Path) -> None:
    """If one of several files cannot be written, none of them changes."""
    key, certificate = small_disk / "root.key", small_disk / "root.crt"
    filler = fill(small_disk)
    os.truncate(filler, filler.stat().st_size - 8192)

    with pytest.raises(OSError, match=r"space.*root[.]crt"):
        files.write_all({key: "key", certificate: "certificate" * 10_000})

    assert [filler] == list(small_disk.iterdir())


def test_unchanged_content_is_not_written(tmp_path: Path) -> None:
    """A file with the same content is not replaced, so that nothing reloads it."""
    path = tmp_path / "routes.yaml"
    files.write(path, "same")
    before = path.stat().st_ino

    files.write_changed(path, "same")
    assert before == path.stat().st_ino
    files.write_changed(path, "other")
    assert "other" == path.read_text()
