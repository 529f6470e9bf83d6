"""Transfer of users between providers."""

import json
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from auth_svc.identities import administration
from auth_svc.identities.__main__ import main
from auth_svc.identities.administration import (
    IdentitiesError,
    Roster,
    act,
    erasable,
    erase,
    find,
)
from auth_svc.identities.transfer import apply_plan, export_users, plan_import, read_users
from auth_svc.ports import Link, User
from auth_svc.providers.appwrite import AppwriteDirectory
from auth_svc.providers.embedded import EmbeddedDirectory
from auth_svc.sessions.revocations import Revocations
from auth_svc.sign_in.passkeys import Ceremony, Passkey
from auth_svc.storage.database import Database
from auth_svc.storage.erasure import SqlErasure
from auth_svc.storage.links import SqlLinks
from auth_svc.storage.passkeys import SqlPasskeys
from auth_svc.storage.revocations import SqlRevocations
from mesh.chassis.testing import FakeClock
from sandbox.appwrite.app import create
from tests.auth_svc.harness import APPWRITE_KEY, PROJECT, AppwriteHarness, embedded, present_clock

HOUR = timedelta(hours=1)
PEOPLE = [
    User(f"64b7f0c2a1d3e4f5{n:04x}", f"a{n}@example.org", ("applicant",)) for n in range(250)
] + [
    User("zoe.1", "zoé@example.org", ("applicant", "approver")),
    User("eve.1", "eve@example.org", ("applicant",), blocked=True),
]


@pytest.fixture
async def sql(tmp_path: Path) -> AsyncIterator[Database]:
    async with aclosing(Database(f"sqlite+aiosqlite:///{tmp_path / 'auth.sqlite'}")) as fresh:
        await fresh.migrate()
        yield fresh


@pytest.fixture
async def rosters(sql: Database, clock: FakeClock) -> AsyncIterator[dict[str, Roster]]:
    """Both providers, without users."""
    transport = httpx.ASGITransport(create(PROJECT, APPWRITE_KEY))
    async with httpx.AsyncClient(transport=transport) as http:
        appwrite = AppwriteHarness.over(sql, clock, http).directory
        yield {"embedded": embedded(sql, clock), "appwrite": appwrite}  # type: ignore[dict-item]


async def everybody(roster: Roster) -> set[User]:
    return {user async for user in roster.users()}


@pytest.mark.parametrize(("here", "there"), [("embedded", "appwrite"), ("appwrite", "embedded")])
async def test_nothing_is_lost(
    rosters: dict[str, Roster], tmp_path: Path, here: str, there: str
) -> None:
    """
    Ids, addresses, labels and blocked states are transferred; a second import finds every user.
    """
    file = tmp_path / "users.jsonl"
    for user in PEOPLE:
        await rosters[here].add_user(user)

    assert len(PEOPLE) == await export_users(file, rosters[here])
    plan = await plan_import(read_users(file), rosters[there])
    assert (len(PEOPLE), 0, ()) == (len(plan.new), plan.known, plan.conflicts)
    await apply_plan(plan, rosters[there])

    assert set(PEOPLE) == await everybody(rosters[there])
    again = await plan_import(read_users(file), rosters[there])
    assert ((), len(PEOPLE), ()) == (again.new, again.known, again.conflicts)


@pytest.mark.parametrize("there", ["embedded", "appwrite"])
@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (User("ada1", "eve@example.org"), "id ada1 exists with another address"),
        (User("eve1", "ada@example.org"), "the address of id eve1 exists with another id"),
    ],
    ids=["same id", "same address"],
)
async def test_conflict(rosters: dict[str, Roster], there: str, other: User, reason: str) -> None:
    """With one conflict nobody is imported, and the error does not contain the address."""
    ada, bob = User("ada1", "ada@example.org"), User("bob1", "bob@example.org")
    await rosters[there].add_user(ada)

    plan = await plan_import([bob, other], rosters[there])
    with pytest.raises(IdentitiesError, match=reason) as ei:
        await apply_plan(plan, rosters[there])

    assert {ada} == await everybody(rosters[there])
    assert "@" not in str(ei.value)


async def test_twice_in_one_file(rosters: dict[str, Roster]) -> None:
    """Two contradictory users in one file are a conflict as well."""
    plan = await plan_import(
        [User("a", "x@example.org"), User("b", "x@example.org")], rosters["embedded"]
    )

    assert (1, 1) == (len(plan.new), len(plan.conflicts))


async def test_file_is_private(rosters: dict[str, Roster], tmp_path: Path) -> None:
    """Only its owner can read the export, and no temporary file remains."""
    file = tmp_path / "out" / "users.jsonl"
    file.parent.mkdir()
    await export_users(file, rosters["embedded"])

    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert [file] == list(file.parent.iterdir())


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "7", '{"id": "a"}', '{"id": "", "email": "a@b"}', '{"id": 1, "email": "a@b"}'],
)
def test_line_that_is_no_user(tmp_path: Path, line: str) -> None:
    """The error for an invalid line has its number."""
    file = tmp_path / "users.jsonl"
    file.write_text('{"id": "a", "email": "a@example.org"}\n' + line + "\n")

    with pytest.raises(IdentitiesError, match=f"{file.name}:2"):
        read_users(file)


@pytest.mark.parametrize("here", ["embedded", "appwrite"])
class TestOne:
    """Administration of a single user."""

    async def test_found(self, rosters: dict[str, Roster], here: str) -> None:
        """A user is found by id, or by address in any case; an unknown one is reported."""
        ada = User("ada1", "ada@example.org")
        await rosters[here].add_user(ada)

        for wanted in ("ada1", "ada@example.org", "ADA@example.org"):
            assert ada == await find(wanted, rosters[here])
        with pytest.raises(IdentitiesError, match="No user"):
            await find("ada", rosters[here])

    async def test_kept_out(self, rosters: dict[str, Roster], sql: Database, here: str) -> None:
        """A user is blocked and unblocked, and has no session after each was ended."""
        roster, passkeys = rosters[here], SqlPasskeys(sql)
        revocations = Revocations(SqlRevocations(sql), present_clock())
        assert isinstance(roster, EmbeddedDirectory | AppwriteDirectory)
        ada = User("ada1", "ada@example.org")
        await roster.add_user(ada)

        assert "blocked" in await act("block", ada, roster, passkeys, revocations)
        assert {replace(ada, blocked=True)} == await everybody(roster)
        assert "may sign in" in await act("unblock", ada, roster, passkeys, revocations)
        assert {ada} == await everybody(roster)
        await roster.open_session_of(ada.id, user_agent="")
        await act("end-sessions", ada, roster, passkeys, revocations)
        assert [] == await roster.sessions(ada.id)

    async def test_lost_passkeys(
        self, rosters: dict[str, Roster], sql: Database, clock: FakeClock, here: str
    ) -> None:
        """
        A user who lost their passkeys signs in by link again, and the lost passkeys no longer work.
        """
        roster, passkeys = rosters[here], SqlPasskeys(sql)
        revocations = Revocations(SqlRevocations(sql), present_clock())
        assert isinstance(roster, EmbeddedDirectory | AppwriteDirectory)
        ada = User("ada1", "ada@example.org", ("applicant", "secondfactor"))
        await roster.add_user(ada)
        await roster.open_session_of(ada.id, user_agent="")
        for key in ("one", "two"):
            await passkeys.add(Passkey(key, ada.id, b"", 0, "", clock()), most=20)

        assert "2 passkeys" in await act("forget-passkeys", ada, roster, passkeys, revocations)

        assert [] == await passkeys.of_user(ada.id)
        assert [] == await roster.sessions(ada.id)
        assert {replace(ada, labels=("applicant",))} == await everybody(roster)

    async def test_erased(
        self, rosters: dict[str, Roster], sql: Database, clock: FakeClock, here: str
    ) -> None:
        """
        Nothing of an erased user is left but revocations of their sessions, and other users keep
        everything; erasing again changes nothing.

        Source: GDPR, article 17.
        """
        roster, passkeys, links = rosters[here], SqlPasskeys(sql), SqlLinks(sql)
        revocations = SqlRevocations(sql)
        assert isinstance(roster, EmbeddedDirectory | AppwriteDirectory)
        ada, bob = User("ada1", "ada@example.org"), User("bob1", "bob@example.org")
        for user in (ada, bob):
            await roster.add_user(user)
            await roster.open_session_of(user.id, user_agent="")
            await passkeys.add(Passkey(user.id, user.id, b"", 0, "", clock()), most=20)
            await passkeys.put_ceremony(Ceremony(user.id, user.id, b"", clock()))
            await links.put(Link(user.id, user.id, user.id.encode(), clock() + HOUR))
        (session,) = await roster.sessions(ada.id)

        for wanted in ("ADA@example.org", "ada1"):
            user_id = await erasable(wanted, roster, yes=True)
            done = await erase(
                user_id, roster, SqlErasure(sql), Revocations(revocations, present_clock())
            )
            assert "Erased ada1" in done

        revoked = await revocations.after(0, since=present_clock()() - HOUR)
        assert [session.id] == [one.session_id for one in revoked.values()]
        assert {bob} == await everybody(roster)
        for user, left in ((ada, 0), (bob, 1)):
            assert left == len(await roster.sessions(user.id))
            assert left == len(await passkeys.of_user(user.id))
            assert left == bool(await passkeys.take_ceremony(user.id, now=clock() - HOUR))
            secret = user.id.encode()
            assert left == bool(await links.consume(user.id, secret, now=clock(), tries=5))

    async def test_erased_only_if_confirmed(self, rosters: dict[str, Roster], here: str) -> None:
        """Without confirmation nobody is erased, and the error has the id."""
        ada = User("ada1", "ada@example.org")
        await rosters[here].add_user(ada)

        with pytest.raises(IdentitiesError, match="Would erase ada1"):
            await erasable(ada.email, rosters[here], yes=False)
        with pytest.raises(IdentitiesError, match="No user"):
            await erasable("eve@example.org", rosters[here], yes=True)


def test_program(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    renew_log: Callable[[ModuleType], None],
) -> None:
    """The program reports a dry run, imports, and exports the same users again."""
    renew_log(administration)
    for name, value in {
        "DATABASE": f"sqlite+aiosqlite:///{tmp_path / 'auth.sqlite'}",
        "SIGNING_KEY_FILE": str(tmp_path / "key.pem"),
        "KEY_SET_LISTEN": "127.0.0.1:3072",
        "SMTP_URL": "smtp://127.0.0.1:3012",
        "LINK_URL": "http://localhost:3000/login",
    }.items():
        monkeypatch.setenv(f"AMARRE_AUTH_{name}", value)
    users = {"id": "ada1", "email": "ada@example.org", "labels": ["applicant"]}
    given, taken = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text(json.dumps(users) + "\n")

    assert 0 == main(["import", str(given), "--dry-run"])
    assert "Would add 1 user to embedded; 0 exist already" in capsys.readouterr().out
    assert 0 == main(["export", str(taken)])
    assert "" == taken.read_text()
    assert 0 == main(["import", str(given)])
    assert 0 == main(["export", str(taken)])
    assert users == json.loads(taken.read_text())
    assert 1 == main(["import", str(tmp_path / "missing")])
    assert "cannot be read" in capsys.readouterr().err
    assert 0 == main(["block", "ADA@example.org"])
    assert 0 == main(["export", str(taken)])
    assert {**users, "blocked": True} == json.loads(taken.read_text())
    assert 1 == main(["unblock", "bob@example.org"])
    assert "Error: No user has this id or address.\n" == capsys.readouterr().err
    assert 1 == main(["erase", "ada1"])
    assert "Would erase ada1" in capsys.readouterr().err
    assert 0 == main(["erase", "ada@example.org", "--yes"])
    audit, done = capsys.readouterr().out.splitlines()
    assert ("user erased", "security") == (json.loads(audit)["event"], json.loads(audit)["kind"])
    assert "ada" not in audit
    assert done.startswith("Erased ada1:")
    assert 1 == main(["block", "ada1"])
