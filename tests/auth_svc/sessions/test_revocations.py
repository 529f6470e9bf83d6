"""Revocations reach everyone who holds tokens of a session."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta

import pytest

from auth_svc.identities.administration import act
from auth_svc.ports import Revocation, User
from auth_svc.providers.embedded import EmbeddedDirectory
from auth_svc.sessions import revocations as module
from auth_svc.sessions.revocations import KEPT, Revocations
from auth_svc.storage.passkeys import SqlPasskeys
from auth_svc.storage.revocations import SqlRevocations
from mesh.chassis.errors import UnauthenticatedError, UnavailableError
from mesh.chassis.identity import SpiffeId
from tests.auth_svc.harness import Harness

WAIT_SECONDS = 20.0
GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")


async def opened(harness: Harness) -> tuple[str, str, str]:
    """Sign in; return the session's secret, its id and the user id."""
    secret = await harness.use(await harness.link())
    issued = await harness.sessions.issue_token(secret, audience="survey", caller=GATEWAY)
    return secret, issued.session.id, issued.user.id


async def upcoming(stream: AsyncIterator[list[Revocation]]) -> list[str]:
    """Return the session ids of the next non-empty item of *stream*."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            if ids := [one.session_id for one in await anext(stream)]:
                return ids


class TestRevocations:
    async def test_log_out_is_pushed(self, harness: Harness) -> None:
        """A watcher is notified at once when a session ends."""
        _, session_id, user_id = await opened(harness)
        async with aclosing(harness.revocations.watch()) as stream:
            assert [] == await anext(stream)
            await harness.sessions.end(user_id, session_id)

            assert [session_id] == await upcoming(stream)
        assert session_id in harness.revocations

    async def test_late_watcher(self, harness: Harness) -> None:
        """A watcher that connects later gets the revocations of tokens that may still be valid."""
        _, session_id, user_id = await opened(harness)
        await harness.sessions.end_all(user_id)

        async with aclosing(harness.revocations.watch()) as stream:
            assert [session_id] == await upcoming(stream)

        harness.clock.advance(KEPT)
        await harness.revocations.poll()
        assert session_id not in harness.revocations

    async def test_other_replica(self, harness: Harness) -> None:
        """Another replica reads the revocation from the database and drops its cached session."""
        other = Harness(
            harness.database,
            harness.clock,
            harness.directory,
            key=harness.key,
            staleness=timedelta(minutes=1),
        )
        secret, session_id, user_id = await opened(harness)
        await other.sessions.issue_token(secret, audience="survey", caller=GATEWAY)
        await harness.sessions.end(user_id, session_id)

        await other.revocations.poll()

        assert session_id in other.revocations
        with pytest.raises(UnauthenticatedError):
            await other.sessions.issue_token(secret, audience="survey", caller=GATEWAY)

    async def test_order_of_visibility(self, harness: Harness) -> None:
        """A revocation that becomes visible after a later one is sent exactly once."""
        store = HeldBack(harness)
        feed = Revocations(store, harness.clock)
        async with aclosing(feed.watch()) as stream:
            await anext(stream)
            store.rows = {7: store.revocation("seven")}
            await feed.poll()
            store.rows[6] = store.revocation("six")
            await feed.poll()
            await feed.poll()

            assert ["seven", "six"] == await upcoming(stream)
            store.rows[8] = store.revocation("eight")
            await feed.poll()
            assert ["eight"] == await upcoming(stream)

    @pytest.mark.parametrize("action", ["block", "end-sessions", "forget-passkeys"])
    async def test_administration(self, harness: Harness, action: str) -> None:
        """A session that an operator ends with a command is revoked in every replica."""
        _, session_id, user_id = await opened(harness)
        assert isinstance(harness.directory, EmbeddedDirectory)
        command = Revocations(SqlRevocations(harness.database), harness.clock)
        user = User(user_id, "ada@example.org")
        await act(action, user, harness.directory, SqlPasskeys(harness.database), command)

        await harness.revocations.poll()

        assert session_id in harness.revocations

    async def test_session_of_somebody_else(self, harness: Harness) -> None:
        """Naming a session of another user revokes nothing."""
        _, session_id, _ = await opened(harness)

        await harness.sessions.end("somebody-else", session_id)

        assert session_id not in harness.revocations

    async def test_store_unavailable(
        self, harness: Harness, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A revocation that cannot be stored is logged, and still pushed by this replica."""
        feed = Revocations(Unavailable(), harness.clock)

        await feed.revoke(["one"])

        assert "one" in feed
        assert "revocation not stored" in "".join(capsys.readouterr())

    async def test_following_survives_an_outage(
        self, harness: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Polling continues after the database was unavailable."""
        monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
        store = Unavailable()
        feed = Revocations(store, harness.clock)
        follower = asyncio.create_task(feed.follow())
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await store.asked.wait()
                store.rows = {1: Revocation("one", "", harness.clock())}
                while "one" not in feed:
                    await asyncio.sleep(0.01)
        finally:
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)

    async def test_heartbeat(self, harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
        """A stream without news yields empty items as heartbeats."""
        monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)
        async with aclosing(harness.revocations.watch()) as stream:
            assert [[], [], []] == [await anext(stream) for _ in range(3)]


class HeldBack:
    """A store whose rows appear when a test says so."""

    def __init__(self, harness: Harness) -> None:
        self._clock = harness.clock
        self.rows: dict[int, Revocation] = {}

    def revocation(self, session_id: str) -> Revocation:
        """Return a revocation made now."""
        return Revocation(session_id, "", self._clock())

    async def add(self, added: Sequence[Revocation]) -> None:
        """Never used."""
        raise NotImplementedError

    async def after(self, position: int, *, since: datetime) -> dict[int, Revocation]:
        """Return the rows after *position*."""
        return {at: row for at, row in self.rows.items() if at > position}


class Unavailable:
    """A store that fails until it has rows."""

    def __init__(self) -> None:
        self.rows: dict[int, Revocation] = {}
        self.asked = asyncio.Event()

    async def add(self, added: Sequence[Revocation]) -> None:
        """Fail."""
        raise UnavailableError("The database is unavailable.")

    async def after(self, position: int, *, since: datetime) -> dict[int, Revocation]:
        """Fail until there are rows."""
        self.asked.set()
        if not self.rows:
            raise UnavailableError("The database is unavailable.")
        return self.rows
