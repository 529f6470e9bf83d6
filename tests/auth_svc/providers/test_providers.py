"""The common behaviour of identity providers, embedded and Appwrite."""

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from auth_svc.errors import InvalidCredentialsError
from auth_svc.ports import SECOND_FACTOR, Verified
from auth_svc.providers.appwrite import AppwriteDirectory
from auth_svc.providers.embedded import EmbeddedDirectory
from auth_svc.storage.database import Database
from mesh.chassis.errors import UnauthenticatedError
from mesh.chassis.identity import SpiffeId
from mesh.chassis.testing import FakeClock
from sandbox.appwrite.app import create
from tests.auth_svc.harness import (
    APPWRITE_KEY,
    FIREFOX,
    LIFE,
    PROJECT,
    AppwriteHarness,
    Harness,
    MailedLink,
    embedded,
)

GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")


@pytest.fixture(params=["embedded", "appwrite"])
async def harness(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock
) -> AsyncIterator[Harness]:
    """Auth with one provider."""
    async with aclosing(Database(f"sqlite+aiosqlite:///{tmp_path / 'auth.sqlite'}")) as database:
        await database.migrate()
        if request.param == "embedded":
            yield Harness(database, clock, embedded(database, clock))
            return
        transport = httpx.ASGITransport(create(PROJECT, APPWRITE_KEY))
        async with httpx.AsyncClient(transport=transport) as http:
            yield AppwriteHarness.over(database, clock, http)


async def verified(harness: Harness, secret: str) -> Verified:
    found = await harness.directory.find_session(secret)
    assert found is not None
    return found


class TestInvite:
    async def test_new_person_gets_the_id_offered(self, harness: Harness) -> None:
        """A new user gets the id that REDCap has."""
        harness.contacts.known["ada@example.org"] = "64b7f0c2a1d3e4f5a6b7"

        link = await harness.link()
        who = await verified(harness, await harness.use(link))

        assert "64b7f0c2a1d3e4f5a6b7" == link.user_id == who.user.id
        assert ("ada@example.org", ("applicant",)) == (who.user.email, who.user.labels)

    async def test_known_person_keeps_the_id(self, harness: Harness) -> None:
        """Signing up again, in any case, finds the same user, whatever id is proposed."""
        first = await harness.link("ada@example.org")
        harness.contacts.known["ada@example.org"] = "64b7f0c2a1d3e4f5a6b7"
        second = await harness.link("ADA@EXAMPLE.ORG")

        assert first.user_id == second.user_id

    async def test_taken_id(self, harness: Harness) -> None:
        """The id of one user is not given to another."""
        taken = (await harness.link("ada@example.org")).user_id
        harness.contacts.known["eve@example.org"] = taken

        link = await harness.link("eve@example.org")
        who = await verified(harness, await harness.use(link))

        assert taken != link.user_id
        assert ("eve@example.org", link.user_id) == (who.user.email, who.user.id)

    async def test_secret_has_256_bits(self, harness: Harness) -> None:
        """The secret of a link has at least 64 hexadecimal characters and is never repeated."""
        one, two = await harness.link(), await harness.link()

        assert 64 <= len(one.secret)
        assert int(one.secret, 16) != int(two.secret, 16)


class TestLink:
    async def test_works_once(self, harness: Harness) -> None:
        """A used link is rejected."""
        link = await harness.link()
        await harness.use(link)

        with pytest.raises(InvalidCredentialsError):
            await harness.use(link)

    async def test_parallel_tries(self, harness: Harness) -> None:
        """Of 50 concurrent attempts, one opens a session."""
        link = await harness.link()

        assert (1, 49) == await harness.use_at_once(link, 50)
        assert 1 == len(await harness.directory.sessions(link.user_id))

    async def test_expires(self, harness: Harness) -> None:
        """A link is valid for 10 minutes, even if the provider's own lifetime is longer."""
        link = await harness.link()
        await harness.advance(timedelta(minutes=10))

        with pytest.raises(InvalidCredentialsError):
            await harness.use(link)

    async def test_new_link_voids_the_old(self, harness: Harness) -> None:
        """Only the newest link is valid."""
        old, new = await harness.link(), await harness.link()

        with pytest.raises(InvalidCredentialsError):
            await harness.use(old)
        await harness.use(new)

    async def test_five_tries(self, harness: Harness) -> None:
        """The fifth wrong secret invalidates the link."""
        link = await harness.link()
        for number in range(5):
            with pytest.raises(InvalidCredentialsError):
                await harness.use(MailedLink(link.user_id, f"{number:064x}"))

        with pytest.raises(InvalidCredentialsError):
            await harness.use(link)


class TestSession:
    async def test_opened_without_a_link(self, harness: Harness) -> None:
        """A user who presents a passkey gets a session that is marked as such."""
        who = await verified(harness, await harness.use(await harness.link()))

        opened = await harness.directory.open_session_of(who.user.id, user_agent=FIREFOX)

        found = await verified(harness, opened.secret)
        assert who.user == found.user
        assert (False, True, True) == (
            who.session.by_passkey,
            opened.session.by_passkey,
            found.session.by_passkey,
        )
        assert 2 == len(await harness.directory.sessions(who.user.id))

    async def test_secret_can_be_a_cookie(self, harness: Harness) -> None:
        """The secret has at most 1,024 cookie-safe characters and cannot be guessed."""
        secret = await harness.use(await harness.link())

        assert re.fullmatch(r"[A-Za-z0-9_-]{43,1024}", secret)
        assert await harness.directory.find_session(secret[:-1]) is None

    @pytest.mark.parametrize(
        "secret", ["", "0" * 64, "e30=", "zoé", "a\r\nb", "x" * 1024], ids=range(6)
    )
    async def test_unknown(self, harness: Harness, secret: str) -> None:
        """A secret without a session has no user, whatever its form."""
        assert await harness.directory.find_session(secret) is None

    async def test_device(self, harness: Harness) -> None:
        """The list of sessions has the device, newest session first."""
        first = await harness.use(await harness.link())
        await harness.advance(timedelta(minutes=1))
        second = await harness.use(await harness.link())
        user_id = (await verified(harness, first)).user.id

        sessions = await harness.directory.sessions(user_id)

        newest, oldest = await verified(harness, second), await verified(harness, first)
        assert [newest.session, oldest.session] == sessions
        assert all(session.device.startswith("Firefox on ") for session in sessions)

    async def test_end(self, harness: Harness) -> None:
        """A session that was ended is unknown, ending it again succeeds, and others remain."""
        one, two = await harness.use(await harness.link()), await harness.use(await harness.link())
        who = await verified(harness, one)

        await harness.directory.end_session(who.user.id, who.session.id)
        await harness.directory.end_session(who.user.id, who.session.id)

        assert await harness.directory.find_session(one) is None
        await verified(harness, two)

    async def test_end_all(self, harness: Harness) -> None:
        """All sessions of one user end, and no others."""
        one, two = await harness.use(await harness.link()), await harness.use(await harness.link())
        bob = await harness.use(await harness.link("bob@example.org"))

        await harness.directory.end_sessions((await verified(harness, one)).user.id)

        assert await harness.directory.find_session(one) is None
        assert await harness.directory.find_session(two) is None
        await verified(harness, bob)

    async def test_somebody_elses(self, harness: Harness) -> None:
        """A session of another user cannot be ended, whether the user exists or not."""
        ada = await verified(harness, await harness.use(await harness.link()))
        secret = await harness.use(await harness.link("bob@example.org"))
        bob = await verified(harness, secret)

        await harness.directory.end_session(ada.user.id, bob.session.id)
        await harness.directory.end_session("nobody", bob.session.id)
        await harness.directory.end_sessions("nobody")

        assert bob == await verified(harness, secret)

    async def test_label(self, harness: Harness) -> None:
        """A label is added and removed without affecting others; both are idempotent."""
        secret = await harness.use(await harness.link())
        who = (await verified(harness, secret)).user

        for on, labels in ((True, {"applicant", "secondfactor"}), (False, {"applicant"})):
            for _ in range(2):
                await harness.directory.set_label(who.id, SECOND_FACTOR, on=on)
                found = (await verified(harness, secret)).user
                assert labels == set(found.labels)
                assert len(labels) == len(found.labels)

    async def test_blocked(self, harness: Harness) -> None:
        """
        A blocked user has no session, cannot open one, and gets no link, with the usual response.
        After being unblocked, the user signs in again.
        """
        roster = harness.directory
        assert isinstance(roster, EmbeddedDirectory | AppwriteDirectory)
        pending = await harness.link()
        secret = await harness.use(pending)
        who = (await verified(harness, secret)).user
        before = await harness.link()

        await roster.block(who.id, on=True)

        assert await roster.find_session(secret) is None
        assert [] == await roster.sessions(who.id)
        assert [True] == [user.blocked async for user in roster.users()]
        with pytest.raises(InvalidCredentialsError):
            await harness.use(before)
        with pytest.raises(InvalidCredentialsError):
            await roster.open_session_of(who.id, user_agent=FIREFOX)
        await harness.sign_in.sign_up(who.email, client="192.0.2.1", language="")
        assert before == await harness.mailed()

        await roster.block(who.id, on=False)
        again = await verified(harness, await harness.use(await harness.link()))
        assert who == again.user

    async def test_idle(self, harness: Harness) -> None:
        """A session in use continues; an idle one ends after 12 hours."""
        secret = await harness.use(await harness.link())
        for _ in range(3):
            await harness.advance(LIFE.idle - timedelta(minutes=1))
            await verified(harness, secret)

        await harness.advance(LIFE.idle)

        assert await harness.directory.find_session(secret) is None

    async def test_absolute_end(self, harness: Harness) -> None:
        """A session ends after 7 days, even if in use."""
        secret = await harness.use(await harness.link())
        who = await verified(harness, secret)
        for _ in range(27):
            await harness.advance(timedelta(hours=6))
            await verified(harness, secret)

        await harness.advance(timedelta(hours=6, minutes=1))

        assert await harness.directory.find_session(secret) is None
        assert [] == await harness.directory.sessions(who.user.id)

    async def test_log_out_is_seen_at_once(self, harness: Harness) -> None:
        """A revoked session is not accepted by the rules."""
        secret = await harness.use(await harness.link())
        issued = await harness.sessions.issue_token(secret, audience="survey", caller=GATEWAY)

        await harness.sessions.end(issued.user.id, issued.session.id)

        with pytest.raises(UnauthenticatedError):
            await harness.sessions.issue_token(secret, audience="survey", caller=GATEWAY)
