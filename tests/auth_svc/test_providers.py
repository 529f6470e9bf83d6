"""What every identity provider does, the embedded one and Appwrite alike."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from auth_svc.appwrite import AppwriteDirectory
from auth_svc.database import Database
from auth_svc.embedded import EmbeddedDirectory
from auth_svc.errors import InvalidCredentialsError
from auth_svc.ports import SECOND_FACTOR, Verified
from mesh.chassis.errors import UnauthenticatedError
from mesh.chassis.identity import SpiffeId
from mesh.chassis.testing import FakeClock
from sandbox.appwrite.app import create
from tests.auth_svc.world import (
    APPWRITE_KEY,
    FIREFOX,
    LIFE,
    PROJECT,
    AppwriteWorld,
    MailedLink,
    World,
    embedded,
)

GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")


@pytest.fixture(params=["embedded", "appwrite"])
async def world(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock
) -> AsyncIterator[World]:
    """Auth over one provider."""
    async with aclosing(Database(f"sqlite+aiosqlite:///{tmp_path / 'auth.sqlite'}")) as database:
        await database.migrate()
        if request.param == "embedded":
            yield World(database, clock, embedded(database, clock))
            return
        transport = httpx.ASGITransport(create(PROJECT, APPWRITE_KEY))
        async with httpx.AsyncClient(transport=transport) as http:
            yield AppwriteWorld.over(database, clock, http)


async def verified(world: World, secret: str) -> Verified:
    found = await world.directory.find_session(secret)
    assert found is not None
    return found


class TestInvite:
    async def test_new_person_gets_the_id_offered(self, world: World) -> None:
        """
        A new person is known under the id that REDCap has.
        """
        world.contacts.known["ada@example.org"] = "64b7f0c2a1d3e4f5a6b7"

        link = await world.link()
        who = await verified(world, await world.use(link))

        assert "64b7f0c2a1d3e4f5a6b7" == link.user_id == who.user.id
        assert ("ada@example.org", ("applicant",)) == (who.user.email, who.user.labels)

    async def test_known_person_keeps_the_id(self, world: World) -> None:
        """
        Signing up again, in any case, finds the same person, whatever id is offered.
        """
        first = await world.link("ada@example.org")
        world.contacts.known["ada@example.org"] = "64b7f0c2a1d3e4f5a6b7"
        second = await world.link("ADA@EXAMPLE.ORG")

        assert first.user_id == second.user_id

    async def test_taken_id(self, world: World) -> None:
        """
        The id of one person is not given to another.
        """
        taken = (await world.link("ada@example.org")).user_id
        world.contacts.known["eve@example.org"] = taken

        link = await world.link("eve@example.org")
        who = await verified(world, await world.use(link))

        assert taken != link.user_id
        assert ("eve@example.org", link.user_id) == (who.user.email, who.user.id)

    async def test_secret_has_256_bits(self, world: World) -> None:
        """
        The secret of a link is 64 hexadecimal characters or more, and never the same.
        """
        one, two = await world.link(), await world.link()

        assert 64 <= len(one.secret)
        assert int(one.secret, 16) != int(two.secret, 16)


class TestLink:
    async def test_works_once(self, world: World) -> None:
        """
        A link that was used is refused.
        """
        link = await world.link()
        await world.use(link)

        with pytest.raises(InvalidCredentialsError):
            await world.use(link)

    async def test_parallel_tries(self, world: World) -> None:
        """
        Of 50 parallel tries one opens a session.
        """
        link = await world.link()

        results = await asyncio.gather(
            *(world.use(link) for _ in range(50)), return_exceptions=True
        )

        assert 1 == sum(isinstance(result, str) for result in results)
        assert 49 == sum(isinstance(result, InvalidCredentialsError) for result in results)
        assert 1 == len(await world.directory.sessions(link.user_id))

    async def test_expires(self, world: World) -> None:
        """
        A link works for 10 minutes, though the provider's own may work for longer.
        """
        link = await world.link()
        await world.advance(timedelta(minutes=10))

        with pytest.raises(InvalidCredentialsError):
            await world.use(link)

    async def test_new_link_voids_the_old(self, world: World) -> None:
        """
        Only the newest link works.
        """
        old, new = await world.link(), await world.link()

        with pytest.raises(InvalidCredentialsError):
            await world.use(old)
        await world.use(new)

    async def test_five_tries(self, world: World) -> None:
        """
        The fifth wrong secret voids the link.
        """
        link = await world.link()
        for number in range(5):
            with pytest.raises(InvalidCredentialsError):
                await world.use(MailedLink(link.user_id, f"{number:064x}"))

        with pytest.raises(InvalidCredentialsError):
            await world.use(link)


class TestSession:
    async def test_opened_without_a_link(self, world: World) -> None:
        """
        A person who showed a passkey gets a session, which tells that from one by a link.
        """
        who = await verified(world, await world.use(await world.link()))

        opened = await world.directory.open_session_of(who.user.id, user_agent=FIREFOX)

        found = await verified(world, opened.secret)
        assert who.user == found.user
        assert (False, True, True) == (
            who.session.by_passkey,
            opened.session.by_passkey,
            found.session.by_passkey,
        )
        assert 2 == len(await world.directory.sessions(who.user.id))

    async def test_secret_can_be_a_cookie(self, world: World) -> None:
        """
        The secret has at most 1,024 characters that any cookie can carry, and is not guessed.
        """
        secret = await world.use(await world.link())

        assert re.fullmatch(r"[A-Za-z0-9_-]{43,1024}", secret)
        assert await world.directory.find_session(secret[:-1]) is None

    @pytest.mark.parametrize(
        "secret", ["", "0" * 64, "e30=", "zoé", "a\r\nb", "x" * 1024], ids=range(6)
    )
    async def test_unknown(self, world: World, secret: str) -> None:
        """
        A secret that opens nothing is nobody's, whatever it looks like.
        """
        assert await world.directory.find_session(secret) is None

    async def test_device(self, world: World) -> None:
        """
        The list of sessions tells the device, newest session first.
        """
        first = await world.use(await world.link())
        await world.advance(timedelta(minutes=1))
        second = await world.use(await world.link())
        user_id = (await verified(world, first)).user.id

        sessions = await world.directory.sessions(user_id)

        newest, oldest = await verified(world, second), await verified(world, first)
        assert [newest.session, oldest.session] == sessions
        assert all(session.device.startswith("Firefox on ") for session in sessions)

    async def test_end(self, world: World) -> None:
        """
        A session that was ended is unknown, and ending it again is no fault; others stay.
        """
        one, two = await world.use(await world.link()), await world.use(await world.link())
        who = await verified(world, one)

        await world.directory.end_session(who.user.id, who.session.id)
        await world.directory.end_session(who.user.id, who.session.id)

        assert await world.directory.find_session(one) is None
        await verified(world, two)

    async def test_end_all(self, world: World) -> None:
        """
        All sessions of one person end, nobody else's do.
        """
        one, two = await world.use(await world.link()), await world.use(await world.link())
        bob = await world.use(await world.link("bob@example.org"))

        await world.directory.end_sessions((await verified(world, one)).user.id)

        assert await world.directory.find_session(one) is None
        assert await world.directory.find_session(two) is None
        await verified(world, bob)

    async def test_somebody_elses(self, world: World) -> None:
        """
        Nobody ends a session of somebody else, known user or not.
        """
        ada = await verified(world, await world.use(await world.link()))
        secret = await world.use(await world.link("bob@example.org"))
        bob = await verified(world, secret)

        await world.directory.end_session(ada.user.id, bob.session.id)
        await world.directory.end_session("nobody", bob.session.id)
        await world.directory.end_sessions("nobody")

        assert bob == await verified(world, secret)

    async def test_label(self, world: World) -> None:
        """
        A label is given and taken away beside the others, once or twice alike.
        """
        secret = await world.use(await world.link())
        who = (await verified(world, secret)).user

        for on, labels in ((True, {"applicant", "secondfactor"}), (False, {"applicant"})):
            for _ in range(2):
                await world.directory.set_label(who.id, SECOND_FACTOR, on=on)
                found = (await verified(world, secret)).user
                assert labels == set(found.labels)
                assert len(labels) == len(found.labels)

    async def test_blocked(self, world: World) -> None:
        """
        Who is blocked has no session, opens none in any way, and gets no link; the answer to
        the wish for one is the same. Unblocked, they sign in again.
        """
        roster = world.directory
        assert isinstance(roster, EmbeddedDirectory | AppwriteDirectory)
        pending = await world.link()
        secret = await world.use(pending)
        who = (await verified(world, secret)).user
        before = await world.link()

        await roster.block(who.id, on=True)

        assert await roster.find_session(secret) is None
        assert [] == await roster.sessions(who.id)
        assert [True] == [user.blocked async for user in roster.users()]
        with pytest.raises(InvalidCredentialsError):
            await world.use(before)
        with pytest.raises(InvalidCredentialsError):
            await roster.open_session_of(who.id, user_agent=FIREFOX)
        await world.sign_in.sign_up(who.email, client="192.0.2.1", language="")
        assert before == await world.mailed()

        await roster.block(who.id, on=False)
        again = await verified(world, await world.use(await world.link()))
        assert who == again.user

    async def test_idle(self, world: World) -> None:
        """
        A session that is used goes on, one that is not ends after 12 hours.
        """
        secret = await world.use(await world.link())
        for _ in range(3):
            await world.advance(LIFE.idle - timedelta(minutes=1))
            await verified(world, secret)

        await world.advance(LIFE.idle)

        assert await world.directory.find_session(secret) is None

    async def test_absolute_end(self, world: World) -> None:
        """
        However much it is used, a session ends after 7 days.
        """
        secret = await world.use(await world.link())
        who = await verified(world, secret)
        for _ in range(27):
            await world.advance(timedelta(hours=6))
            await verified(world, secret)

        await world.advance(timedelta(hours=6, minutes=1))

        assert await world.directory.find_session(secret) is None
        assert [] == await world.directory.sessions(who.user.id)

    async def test_log_out_is_seen_at_once(self, world: World) -> None:
        """
        Through the rules, a session that ends is not believed any more.
        """
        secret = await world.use(await world.link())
        voucher = await world.sessions.vouch(secret, audience="survey", caller=GATEWAY)

        await world.sessions.end(voucher.user.id, voucher.session.id)

        with pytest.raises(UnauthenticatedError):
            await world.sessions.vouch(secret, audience="survey", caller=GATEWAY)
