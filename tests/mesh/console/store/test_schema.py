"""The database file: damaged, of another version, in a folder that is not writable."""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.console.store import schema
from tests.mesh.console.conftest import Kept
from tests.mesh.console.telemetry import logs


def test_damaged(make: Callable[..., Kept], tmp_path: Path) -> None:
    """
    A damaged file is renamed and a new one created.
    """
    folder = tmp_path
    (folder / "console.sqlite").write_bytes(b"this is no database " * 500)
    kept = make()
    kept.take("logs", logs("auth", "hello"))

    assert 1 == kept.rows("SELECT count(*) FROM logs")[0][0]
    assert 1 == len(list(folder.glob("console.sqlite.damaged-*")))


def test_other_version(make: Callable[..., Kept], tmp_path: Path) -> None:
    """
    A file of another version is kept under a name that says so, and a new one created.
    """
    with contextlib.closing(sqlite3.connect(tmp_path / "console.sqlite")) as db:
        db.execute("PRAGMA user_version = 5")
    make()

    assert 1 == len(list(tmp_path.glob("console.sqlite.other-version-*")))


def test_no_folder(tmp_path: Path) -> None:
    """
    A file that cannot be created is reported in one clear message.
    """
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(schema.DatabaseError, match="AMARRE_CONSOLE_DATABASE"):
        schema.open_writer(blocked / "console.sqlite")
