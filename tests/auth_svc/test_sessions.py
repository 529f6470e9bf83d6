"""The rules of sessions."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from auth_svc import storage
from auth_svc.embedded import MOST_SESSIONS, EmbeddedDirectory
from auth_svc.errors import InvalidCredentialsError
from auth_svc.factors import Asked, SecondFactor
from auth_svc.ports import SECOND_FACTOR, Verified
from auth_svc.sessions import Voucher
from auth_svc.signin import SESSIONS
from auth_svc.tables import sessions
from mesh.chassis.errors import InvalidRequestError, UnauthenticatedError
from mesh.chassis.identity import SpiffeId
from mesh.chassis.testing import FakeClock, FixedKeys
from mesh.chassis.tokens import InvalidTokenError, TokenVerifier
from tests.auth_svc.world import LIFE, World

GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")
SURVEY = SpiffeId("amarre.local", "amarre", "survey")


async def vouch(world: World, secret: str, audience: str = "survey") -> Voucher:
    return await world.sessions.vouch(secret, audience=audience, caller=GATEWAY)


async def signed_in(world: World, email: str = "ada@example.org") -> str:
    return await world.use(await world.link(email))


class CountingDirectory(EmbeddedDirectory):
    """Counts how often it is asked for a session, and lets a test act meanwhile."""

    asked = 0

    async def find_session(self, secret: str) -> Verified | None:
        """Count, then answer."""
        self.asked += 1
        return await super().find_session(secret)


@pytest.fixture
def counting(world: World, clock: FakeClock) -> CountingDirectory:
    return CountingDirectory(world.database, LIFE, clock)


class TestVouch:
    async def test_token_is_for_one_audience_and_one_caller(self, world: World) -> None:
        """
        The token vouches for the user to the audience, shown by the caller, and to nobody else.
        """
        voucher = await vouch(world, await signed_in(world))

        def verifier(audience: str) -> TokenVerifier:
            return TokenVerifier(FixedKeys(world.key), audience=audience, now=world.clock.time)

        user = await verifier("survey").verify(voucher.token, caller=GATEWAY)
        assert (voucher.user.id, "ada@example.org") == (user.id, user.email)
        assert voucher.session.id == user.session_id
        assert timedelta(seconds=60) >= voucher.token_ends_at - world.clock()
        with pytest.raises(InvalidTokenError):
            await verifier("health").verify(voucher.token, caller=GATEWAY)
        with pytest.raises(InvalidTokenError):
            await verifier("survey").verify(voucher.token, caller=SURVEY)

    async def test_another_audience_gets_another_token(self, world: World) -> None:
        """
        What is remembered for one audience is not handed out for another.
        """
        secret = await signed_in(world)

        first, second = await vouch(world, secret, "survey"), await vouch(world, secret, "auth")

        assert first.token != second.token

    @pytest.mark.parametrize("secret", ["", "0" * 64, "x", "é" * 100], ids=range(4))
    async def test_unknown(self, world: World, secret: str) -> None:
        """
        A secret that opens nothing is nobody's.
        """
        with pytest.raises(UnauthenticatedError):
            await vouch(world, secret)

    async def test_idle(self, world: World) -> None:
        """
        A session that is used goes on; one that is not ends after 12 hours.
        """
        secret = await signed_in(world)
        for _ in range(4):
            world.clock.advance(timedelta(hours=11))
            await vouch(world, secret)

        world.clock.advance(timedelta(hours=12))
        with pytest.raises(UnauthenticatedError):
            await vouch(world, secret)

    async def test_absolute_end(self, world: World) -> None:
        """
        A session ends after 7 days however much it is used.
        """
        secret = await signed_in(world)
        for _ in range(7 * 24 // 6 - 1):
            world.clock.advance(timedelta(hours=6))
            await vouch(world, secret)

        world.clock.advance(timedelta(hours=6))
        with pytest.raises(UnauthenticatedError):
            await vouch(world, secret)

    async def test_end_while_remembered(self, world: World) -> None:
        """
        A session that is remembered still ends at its very end.
        """
        secret = await signed_in(world)
        for _ in range(27):
            world.clock.advance(timedelta(hours=6))
            await vouch(world, secret)
        world.clock.advance(timedelta(hours=6) - timedelta(seconds=1))
        await vouch(world, secret)
        world.clock.advance(timedelta(seconds=1))

        with pytest.raises(UnauthenticatedError):
            await vouch(world, secret)

    async def test_operator(self, world: World) -> None:
        """
        People whom the settings call operators have that role beside their own.
        """
        run = World(world.database, world.clock, world.directory, operators=("ada@example.org",))

        ada = await vouch(run, await signed_in(run))
        bob = await vouch(run, await signed_in(run, "bob@example.org"))

        assert ("applicant", "operator") == ada.user.labels
        assert ("applicant",) == bob.user.labels


class TestFactors:
    @pytest.mark.parametrize(
        ("asked", "chosen", "operator", "partial"),
        [
            ("chosen", False, True, False),
            ("chosen", True, False, True),
            ("operators", False, False, False),
            ("operators", False, True, True),
            ("everybody", False, False, True),
        ],
    )
    async def test_who_is_asked(
        self, world: World, *, asked: Asked, chosen: bool, operator: bool, partial: bool
    ) -> None:
        """
        A session by a link alone is partial for whom a second factor is asked of; one by passkey
        is whole for everybody, and each token tells when its session began.
        """
        run = World(
            world.database,
            world.clock,
            world.directory,
            operators=("ada@example.org",) * operator,
            second_factor=SecondFactor(asked),
        )
        by_link = await signed_in(run)
        ada = (await vouch(run, by_link)).user
        await run.directory.set_label(ada.id, SECOND_FACTOR, on=chosen)
        run.sessions.forget_user(ada.id)
        began = int(run.clock.time())
        run.clock.advance(timedelta(minutes=11))
        by_passkey = (await run.directory.open_session_of(ada.id, user_agent="")).secret
        verifier = TokenVerifier(FixedKeys(run.key), audience="survey", now=run.clock.time)

        for secret, wanted, at in (
            (by_link, partial, began),
            (by_passkey, False, int(run.clock.time())),
        ):
            voucher = await vouch(run, secret)
            user = await verifier.verify(voucher.token, caller=GATEWAY)
            assert (wanted, at) == (user.partial, user.signed_in_at)
            assert (SECOND_FACTOR in user.labels) is partial

    async def test_clock_of_the_provider_ahead(self, world: World) -> None:
        """
        A session that began in our future, by the provider's clock, earns a token all the same.
        """
        secret = await signed_in(world)
        world.clock.advance(timedelta(seconds=-30))
        verifier = TokenVerifier(FixedKeys(world.key), audience="survey", now=world.clock.time)

        user = await verifier.verify((await vouch(world, secret)).token, caller=GATEWAY)

        assert int(world.clock.time()) == user.signed_in_at


class TestMemory:
    async def test_is_asked_once(self, world: World, counting: CountingDirectory) -> None:
        """
        Within 2 s the directory is asked once, after them again.
        """
        world = World(world.database, world.clock, counting)
        secret = await signed_in(world)

        for _ in range(5):
            await vouch(world, secret)
        assert 1 == counting.asked
        world.clock.advance(timedelta(seconds=2))
        await vouch(world, secret)
        assert 2 == counting.asked

    async def test_log_out_is_seen_at_once(self, world: World) -> None:
        """
        A session that ends here is not believed any more, though it was a moment ago.
        """
        secret = await signed_in(world)
        voucher = await vouch(world, secret)

        await world.sessions.end(voucher.user.id, voucher.session.id)

        with pytest.raises(UnauthenticatedError):
            await vouch(world, secret)

    async def test_log_out_while_being_verified(self, world: World, clock: FakeClock) -> None:
        """
        A session that ends between the directory's answer and its being remembered is not
        remembered.
        """

        class Interrupted(EmbeddedDirectory):
            async def find_session(self, secret: str) -> Verified | None:
                verified = await super().find_session(secret)
                if verified is not None:
                    await world.sessions.end(verified.user.id, verified.session.id)
                return verified

        world = World(world.database, clock, Interrupted(world.database, LIFE, clock))
        secret = await signed_in(world)
        await vouch(world, secret)

        with pytest.raises(UnauthenticatedError):
            await vouch(world, secret)

    async def test_log_out_at_another_replica(self, world: World) -> None:
        """
        A session that ends elsewhere is believed for 2 s at most.
        """
        other = World(world.database, world.clock, world.directory)
        other.key = world.key
        secret = await signed_in(world)
        voucher = await vouch(world, secret)

        await other.sessions.end(voucher.user.id, voucher.session.id)
        world.clock.advance(timedelta(seconds=2))

        with pytest.raises(UnauthenticatedError):
            await vouch(world, secret)

    async def test_token_handed_out_again_lives_on(self, world: World) -> None:
        """
        A token that is remembered has half a minute left when it is handed out again.
        """
        slow = World(world.database, world.clock, world.directory, staleness=timedelta(minutes=5))
        secret = await signed_in(slow)
        first = await vouch(slow, secret)

        world.clock.advance(timedelta(seconds=29))
        assert first.token == (await vouch(slow, secret)).token
        world.clock.advance(timedelta(seconds=2))
        assert first.token != (await vouch(slow, secret)).token


class TestEnd:
    async def test_here(self, world: World) -> None:
        """
        Ending one session leaves the others open.
        """
        here, there = await signed_in(world), await signed_in(world)
        voucher = await vouch(world, here)

        await world.sessions.end(voucher.user.id, voucher.session.id)
        await world.sessions.end(voucher.user.id, voucher.session.id)

        with pytest.raises(UnauthenticatedError):
            await vouch(world, here)
        await vouch(world, there)

    async def test_everywhere(self, world: World) -> None:
        """
        Ending all sessions of a user ends nobody else's.
        """
        here, there = await signed_in(world), await signed_in(world)
        bob = await signed_in(world, "bob@example.org")
        for secret in (here, there, bob):
            voucher = await vouch(world, secret)
        ada = await vouch(world, here)

        await world.sessions.end_all(ada.user.id)

        for secret in (here, there):
            with pytest.raises(UnauthenticatedError):
                await vouch(world, secret)
        assert voucher.user.id == (await vouch(world, bob)).user.id

    async def test_somebody_elses(self, world: World) -> None:
        """
        A user cannot end a session of somebody else.
        """
        ada, bob = await signed_in(world), await signed_in(world, "bob@example.org")
        of_bob = (await vouch(world, bob)).session.id

        await world.sessions.end((await vouch(world, ada)).user.id, of_bob)

        world.clock.advance(timedelta(seconds=2))
        assert of_bob == (await vouch(world, bob)).session.id


async def test_counted(world: World) -> None:
    """
    Sessions are counted as they are opened and ended; a link that is refused counts nowhere.
    """

    def counted() -> dict[str, float]:
        (family,) = SESSIONS.collect()
        return {s.labels["event"]: s.value for s in family.samples if s.name.endswith("_total")}

    before = counted()
    voucher = await vouch(world, await signed_in(world))
    with pytest.raises(InvalidCredentialsError):
        await world.sign_in.log_in("zz", "zz", client="192.0.2.1", user_agent="")
    await world.sessions.end(voucher.user.id, voucher.session.id)
    await world.sessions.end_all(voucher.user.id)
    after = counted()

    assert {event: after[event] - before[event] for event in after} == {
        "opened_by_link": 1,
        "opened_by_passkey": 0,
        "ended": 1,
        "all_ended": 1,
    }


class TestPage:
    async def test_pages(self, world: World) -> None:
        """
        Sessions come newest first, in pages that lead through all of them.
        """
        opened = []
        for _ in range(3):
            secret = await signed_in(world)
            opened.append((await vouch(world, secret)).session.id)
            world.clock.advance(timedelta(minutes=1))
        user_id = (await vouch(world, secret)).user.id

        seen, token = [], ""
        while True:
            page, token = await world.sessions.page(user_id, size=2, token=token)
            seen += [session.id for session in page]
            if not token:
                break

        assert opened[::-1] == seen

    @pytest.mark.parametrize("token", ["x", "LTE=", "MDA=", "é", "A" * 300], ids=range(5))
    async def test_page_token_of_somebody(self, world: World, token: str) -> None:
        """
        A page token that was never given is refused.
        """
        with pytest.raises(InvalidRequestError):
            await world.sessions.page("ab", size=0, token=token)


async def test_the_oldest_session_ends_beyond_the_most(world: World) -> None:
    """
    A user has at most 200 sessions; the next one ends the oldest.
    """
    user_id = (await world.link()).user_id
    opened = []
    for _ in range(MOST_SESSIONS + 1):
        opened.append(await world.directory.open_session(user_id, "", user_agent=""))
        world.clock.advance(timedelta(seconds=1))

    assert MOST_SESSIONS == len(await world.directory.sessions(user_id))
    assert await world.directory.find_session(opened[0].secret) is None
    assert await world.directory.find_session(opened[1].secret) is not None


async def test_purge_forgets_what_has_ended(world: World) -> None:
    """
    Purging removes sessions past their end and no others.
    """
    await signed_in(world)
    world.clock.advance(LIFE.absolute + timedelta(seconds=1))
    kept = await signed_in(world)

    await storage.purge(world.database, world.clock())

    async with world.database.transaction() as connection:
        rows = (await connection.execute(select(sessions.c.id))).scalars().all()
    assert [(await vouch(world, kept)).session.id] == list(rows)
