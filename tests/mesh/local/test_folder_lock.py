"""The lock of a data folder, also after its file was removed."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mesh.local.folder_lock import AlreadyRunningError, FolderLock


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[FolderLock]:
    """A lock that is held."""
    with closing(FolderLock(tmp_path / "lock")) as lock:
        lock.take()
        yield lock


@pytest.fixture
def second(tmp_path: Path) -> Iterator[FolderLock]:
    """The lock of another mesh in the same folder."""
    with closing(FolderLock(tmp_path / "lock")) as second:
        yield second


def test_removed_lock(tmp_path: Path, lock: FolderLock, second: FolderLock) -> None:
    """A lock whose file was removed is taken again, so that no second mesh starts."""
    (tmp_path / "lock").unlink()

    assert lock.keep()
    with pytest.raises(AlreadyRunningError, match="--port-base"):
        second.take()
    assert not lock.problem


def test_lock_taken_by_another(tmp_path: Path, lock: FolderLock, second: FolderLock) -> None:
    """If another mesh has started meanwhile, that is a problem until it stops."""
    (tmp_path / "lock").unlink()
    second.take()

    assert not lock.keep()
    assert "another mesh" in lock.problem
    second.close()
    assert lock.keep()
    assert not lock.problem
