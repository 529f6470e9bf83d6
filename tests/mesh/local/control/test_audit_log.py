"""The audit log of control actions."""

import stat
from pathlib import Path

from mesh.local.control import audit_log
from mesh.local.control.audit_log import AuditLog
from tests.mesh.local.conftest import fill


def tell(_: str) -> None:
    """A progress callback that does nothing."""


async def test_orders(tmp_path: Path) -> None:
    """
    Actions that make changes are recorded, newest first, readable only by this user; others are
    not.
    """
    file = tmp_path / "orders.jsonl"
    kept = AuditLog(file)
    kept.record("fault add", {"method": "survey.ListRequests", "abort": None}, "ada", "")
    kept.record("fault list", {}, "ada", "")
    kept.record("restart", {"service": "nobody"}, "", "There is no service nobody.")

    found = await kept.last({}, tell)
    assert [("restart", "somebody"), ("fault add", "ada")] == [(f["order"], f["by"]) for f in found]
    assert {"method": "survey.ListRequests"} == found[1]["asked"]
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)


async def test_secrets(tmp_path: Path) -> None:
    """
    The content of a call is not recorded: sessions are secret and requests contain personal data.
    """
    kept = AuditLog(tmp_path / "orders.jsonl")
    given = {"method": "survey.ListRequests", "request": '{"a": 1}', "session": "s" * 43}
    kept.record("call", given, "ada", "")

    assert [{"method": "survey.ListRequests"}] == [f["asked"] for f in await kept.last({}, tell)]


async def test_cut_off(tmp_path: Path) -> None:
    """A line truncated by a full disk does not hide the others."""
    file = tmp_path / "orders.jsonl"
    kept = AuditLog(file)
    kept.record("restart", {"service": "survey"}, "ada", "")
    with file.open("a") as more:
        more.write('{"at": "20\n')
    kept.record("restart", {"service": "auth"}, "ada", "")

    assert ["auth", "survey"] == [f["asked"]["service"] for f in await kept.last({}, tell)]


async def test_full_disk(small_disk: Path) -> None:
    """
    Entries that do not fit on the disk are shown, and written when there is space.

    An entry that fits in part leaves no half of a line, which the next entry would continue.
    Fails if entries are appended as far as there is space.
    """
    file = small_disk / "orders.jsonl"
    kept = AuditLog(file)
    kept.record("restart", {"service": "before"}, "ada", "")
    filler = fill(small_disk)
    names = ["x" * 5000, "second"]
    for name in names:
        kept.record("restart", {"service": name}, "ada", "")

    assert [*reversed(names), "before"] == [
        f["asked"]["service"] for f in await kept.last({}, tell)
    ]
    (problem,) = kept.problems()
    assert "2 entries are not written (No space left on device)" in problem or "28" in problem
    assert file.read_bytes().endswith(b"\n")

    filler.unlink()
    kept.retry()
    assert [] == kept.problems()
    again = await AuditLog(file).last({}, tell)
    assert [*reversed(names), "before"] == [f["asked"]["service"] for f in again]


async def test_bounded(tmp_path: Path) -> None:
    """When the file is large, its oldest lines are removed."""
    file = tmp_path / "orders.jsonl"
    kept = AuditLog(file)
    for number in range(3):
        kept.record("restart", {"service": str(number) + "x" * 400_000}, "ada", "")
    for number in range(audit_log.SHOWN + 5):
        kept.record("restart", {"service": str(number)}, "ada", "")

    assert audit_log.SHOWN == len(await kept.last({}, tell))
