"""Rules of sessions."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from auth_svc.errors import InvalidCredentialsError
from auth_svc.metrics import SESSIONS
from auth_svc.ports import SECOND_FACTOR, Verified
from auth_svc.providers.embedded import MAX_SESSIONS_PER_USER, EmbeddedDirectory
from auth_svc.sessions.lifecycle import IssuedToken
from auth_svc.sessions.second_factor import RequiredFor, SecondFactorPolicy
from auth_svc.storage.retention import purge
from auth_svc.storage.tables import sessions
from mesh.chassis.errors import InvalidRequestError, UnauthenticatedError
from mesh.chassis.identity import SpiffeId
from mesh.chassis.testing import FakeClock, FixedKeys
from mesh.chassis.tokens import InvalidTokenError, TokenVerifier
from tests.auth_svc.harness import LIFE, Harness

GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")
SURVEY = SpiffeId("amarre.local", "amarre", "survey")


async def issue_token(harness: Harness, secret: str, audience: str = "survey") -> IssuedToken:
    return await harness.sessions.issue_token(secret, audience=audience, caller=GATEWAY)


async def signed_in(harness: Harness, email: str = "ada@example.org") -> str:
    return await harness.use(await harness.link(email))


class CountingDirectory(EmbeddedDirectory):
    """Counts look-ups of sessions, and lets a test act during one."""

    asked = 0

    async def find_session(self, secret: str) -> Verified | None:
        """Count, then return the session."""
        self.asked += 1
        return await super().find_session(secret)


@pytest.fixture
def counting(harness: Harness, clock: FakeClock) -> CountingDirectory:
    return CountingDirectory(harness.database, LIFE, clock)


class TestVouch:
    async def test_token_is_for_one_audience_and_one_caller(self, harness: Harness) -> None:
        """The token is valid only for the user, the audience and the caller."""
        issued = await issue_token(harness, await signed_in(harness))

        def verifier(audience: str) -> TokenVerifier:
            return TokenVerifier(FixedKeys(harness.key), audience=audience, now=harness.clock.time)

        user = await verifier("survey").verify(issued.token, caller=GATEWAY)
        assert (issued.user.id, "ada@example.org") == (user.id, user.email)
        assert issued.session.id == user.session_id
        assert timedelta(seconds=60) >= issued.token_expires_at - harness.clock()
        with pytest.raises(InvalidTokenError):
            await verifier("health").verify(issued.token, caller=GATEWAY)
        with pytest.raises(InvalidTokenError):
            await verifier("survey").verify(issued.token, caller=SURVEY)

    async def test_another_audience_gets_another_token(self, harness: Harness) -> None:
        """A token cached for one audience is not returned for another."""
        secret = await signed_in(harness)

        first, second = (
            await issue_token(harness, secret, "survey"),
            await issue_token(harness, secret, "auth"),
        )

        assert first.token != second.token

    @pytest.mark.parametrize("secret", ["", "0" * 64, "x", "é" * 100], ids=range(4))
    async def test_unknown(self, harness: Harness, secret: str) -> None:
        """A secret without a session has no user."""
        with pytest.raises(UnauthenticatedError):
            await issue_token(harness, secret)

    async def test_idle(self, harness: Harness) -> None:
        """A session in use continues; an idle one ends after 12 hours."""
        secret = await signed_in(harness)
        for _ in range(4):
            harness.clock.advance(timedelta(hours=11))
            await issue_token(harness, secret)

        harness.clock.advance(timedelta(hours=12))
        with pytest.raises(UnauthenticatedError):
            await issue_token(harness, secret)

    async def test_absolute_end(self, harness: Harness) -> None:
        """A session ends after 7 days, even if in use."""
        secret = await signed_in(harness)
        for _ in range(7 * 24 // 6 - 1):
            harness.clock.advance(timedelta(hours=6))
            await issue_token(harness, secret)

        harness.clock.advance(timedelta(hours=6))
        with pytest.raises(UnauthenticatedError):
            await issue_token(harness, secret)

    async def test_end_while_remembered(self, harness: Harness) -> None:
        """A cached session still ends at its expiry."""
        secret = await signed_in(harness)
        for _ in range(27):
            harness.clock.advance(timedelta(hours=6))
            await issue_token(harness, secret)
        harness.clock.advance(timedelta(hours=6) - timedelta(seconds=1))
        await issue_token(harness, secret)
        harness.clock.advance(timedelta(seconds=1))

        with pytest.raises(UnauthenticatedError):
            await issue_token(harness, secret)

    async def test_operator(self, harness: Harness) -> None:
        """Operators in the settings have that role in addition to their own."""
        run = Harness(
            harness.database, harness.clock, harness.directory, operators=("ada@example.org",)
        )

        ada = await issue_token(run, await signed_in(run))
        bob = await issue_token(run, await signed_in(run, "bob@example.org"))

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
        self, harness: Harness, *, asked: RequiredFor, chosen: bool, operator: bool, partial: bool
    ) -> None:
        """
        A session opened by link is partial for users who need a second factor; one opened by
        passkey is complete, and each token has the start time of its session.
        """
        run = Harness(
            harness.database,
            harness.clock,
            harness.directory,
            operators=("ada@example.org",) * operator,
            second_factor=SecondFactorPolicy(asked),
        )
        by_link = await signed_in(run)
        ada = (await issue_token(run, by_link)).user
        await run.directory.set_label(ada.id, SECOND_FACTOR, on=chosen)
        await run.sessions.user_changed(ada.id)
        began = int(run.clock.time())
        run.clock.advance(timedelta(minutes=11))
        by_passkey = (await run.directory.open_session_of(ada.id, user_agent="")).secret
        verifier = TokenVerifier(FixedKeys(run.key), audience="survey", now=run.clock.time)

        for secret, wanted, at in (
            (by_link, partial, began),
            (by_passkey, False, int(run.clock.time())),
        ):
            issued = await issue_token(run, secret)
            user = await verifier.verify(issued.token, caller=GATEWAY)
            assert (wanted, at) == (user.partial, user.signed_in_at)
            assert (SECOND_FACTOR in user.labels) is partial

    async def test_clock_of_the_provider_ahead(self, harness: Harness) -> None:
        """A session that starts in the future, by the provider's clock, gets a token anyway."""
        secret = await signed_in(harness)
        harness.clock.advance(timedelta(seconds=-30))
        verifier = TokenVerifier(FixedKeys(harness.key), audience="survey", now=harness.clock.time)

        user = await verifier.verify((await issue_token(harness, secret)).token, caller=GATEWAY)

        assert int(harness.clock.time()) == user.signed_in_at


class TestMemory:
    async def test_is_asked_once(self, harness: Harness, counting: CountingDirectory) -> None:
        """Within 2 s the directory is called once, then again."""
        harness = Harness(harness.database, harness.clock, counting)
        secret = await signed_in(harness)

        for _ in range(5):
            await issue_token(harness, secret)
        assert 1 == counting.asked
        harness.clock.advance(timedelta(seconds=2))
        await issue_token(harness, secret)
        assert 2 == counting.asked

    async def test_log_out_is_seen_at_once(self, harness: Harness) -> None:
        """A session that ends here is rejected immediately, although it was just cached."""
        secret = await signed_in(harness)
        issued = await issue_token(harness, secret)

        await harness.sessions.end(issued.user.id, issued.session.id)

        with pytest.raises(UnauthenticatedError):
            await issue_token(harness, secret)

    async def test_log_out_while_being_verified(self, harness: Harness, clock: FakeClock) -> None:
        """A session that ends between the directory's response and caching is not cached."""

        class Interrupted(EmbeddedDirectory):
            async def find_session(self, secret: str) -> Verified | None:
                verified = await super().find_session(secret)
                if verified is not None:
                    await harness.sessions.end(verified.user.id, verified.session.id)
                return verified

        harness = Harness(harness.database, clock, Interrupted(harness.database, LIFE, clock))
        secret = await signed_in(harness)
        await issue_token(harness, secret)

        with pytest.raises(UnauthenticatedError):
            await issue_token(harness, secret)

    async def test_log_out_at_another_replica(self, harness: Harness) -> None:
        """A session that ends elsewhere is accepted for at most 2 s."""
        other = Harness(harness.database, harness.clock, harness.directory)
        other.key = harness.key
        secret = await signed_in(harness)
        issued = await issue_token(harness, secret)

        await other.sessions.end(issued.user.id, issued.session.id)
        harness.clock.advance(timedelta(seconds=2))

        with pytest.raises(UnauthenticatedError):
            await issue_token(harness, secret)

    async def test_token_handed_out_again_lives_on(self, harness: Harness) -> None:
        """A cached token has at least half a minute left when it is returned."""
        slow = Harness(
            harness.database, harness.clock, harness.directory, staleness=timedelta(minutes=5)
        )
        secret = await signed_in(slow)
        first = await issue_token(slow, secret)

        harness.clock.advance(timedelta(seconds=29))
        assert first.token == (await issue_token(slow, secret)).token
        harness.clock.advance(timedelta(seconds=2))
        assert first.token != (await issue_token(slow, secret)).token


class TestEnd:
    async def test_here(self, harness: Harness) -> None:
        """Ending one session leaves the others open."""
        here, there = await signed_in(harness), await signed_in(harness)
        issued = await issue_token(harness, here)

        await harness.sessions.end(issued.user.id, issued.session.id)
        await harness.sessions.end(issued.user.id, issued.session.id)

        with pytest.raises(UnauthenticatedError):
            await issue_token(harness, here)
        await issue_token(harness, there)

    async def test_everywhere(self, harness: Harness) -> None:
        """Ending all sessions of a user does not affect other users."""
        here, there = await signed_in(harness), await signed_in(harness)
        bob = await signed_in(harness, "bob@example.org")
        for secret in (here, there, bob):
            issued = await issue_token(harness, secret)
        ada = await issue_token(harness, here)

        await harness.sessions.end_all(ada.user.id)

        for secret in (here, there):
            with pytest.raises(UnauthenticatedError):
                await issue_token(harness, secret)
        assert issued.user.id == (await issue_token(harness, bob)).user.id

    async def test_somebody_elses(self, harness: Harness) -> None:
        """A user cannot end a session of another user."""
        ada, bob = await signed_in(harness), await signed_in(harness, "bob@example.org")
        of_bob = (await issue_token(harness, bob)).session.id

        await harness.sessions.end((await issue_token(harness, ada)).user.id, of_bob)

        harness.clock.advance(timedelta(seconds=2))
        assert of_bob == (await issue_token(harness, bob)).session.id


async def test_counted(harness: Harness) -> None:
    """Opened and ended sessions are counted; rejected links are not."""

    def counted() -> dict[str, float]:
        (family,) = SESSIONS.collect()
        return {s.labels["event"]: s.value for s in family.samples if s.name.endswith("_total")}

    before = counted()
    issued = await issue_token(harness, await signed_in(harness))
    with pytest.raises(InvalidCredentialsError):
        await harness.sign_in.log_in("zz", "zz", client="192.0.2.1", user_agent="")
    await harness.sessions.end(issued.user.id, issued.session.id)
    await harness.sessions.end_all(issued.user.id)
    after = counted()

    assert {event: after[event] - before[event] for event in after} == {
        "opened_by_link": 1,
        "opened_by_passkey": 0,
        "ended": 1,
        "all_ended": 1,
    }


class TestPage:
    async def test_pages(self, harness: Harness) -> None:
        """Sessions are listed newest first, in pages that contain all of them."""
        opened = []
        for _ in range(3):
            secret = await signed_in(harness)
            opened.append((await issue_token(harness, secret)).session.id)
            harness.clock.advance(timedelta(minutes=1))
        user_id = (await issue_token(harness, secret)).user.id

        seen, token = [], ""
        while True:
            page, token = await harness.sessions.page(user_id, size=2, token=token)
            seen += [session.id for session in page]
            if not token:
                break

        assert opened[::-1] == seen

    @pytest.mark.parametrize("token", ["x", "LTE=", "MDA=", "é", "A" * 300], ids=range(5))
    async def test_page_token_of_somebody(self, harness: Harness, token: str) -> None:
        """An unknown page token is rejected."""
        with pytest.raises(InvalidRequestError):
            await harness.sessions.page("ab", size=0, token=token)


async def test_the_oldest_session_ends_beyond_the_most(harness: Harness) -> None:
    """A user has at most 200 sessions; the next one ends the oldest."""
    user_id = (await harness.link()).user_id
    opened = []
    for _ in range(MAX_SESSIONS_PER_USER + 1):
        opened.append(await harness.directory.open_session(user_id, "", user_agent=""))
        harness.clock.advance(timedelta(seconds=1))

    assert MAX_SESSIONS_PER_USER == len(await harness.directory.sessions(user_id))
    assert await harness.directory.find_session(opened[0].secret) is None
    assert await harness.directory.find_session(opened[1].secret) is not None


async def test_purge_forgets_what_has_ended(harness: Harness) -> None:
    """Purging removes only expired sessions."""
    await signed_in(harness)
    harness.clock.advance(LIFE.absolute + timedelta(seconds=1))
    kept = await signed_in(harness)

    await purge(harness.database, harness.clock())

    async with harness.database.transaction() as connection:
        rows = (await connection.execute(select(sessions.c.id))).scalars().all()
    assert [(await issue_token(harness, kept)).session.id] == list(rows)
