"""Log-in with the secret of a magic link."""

import asyncio
import re
from datetime import timedelta

import pytest

from auth_svc.errors import InvalidCredentialsError
from auth_svc.ports import OpenedSession
from mesh.chassis import call
from mesh.chassis.errors import RateLimitedError, UnavailableError, UpstreamError
from mesh.chassis.identity import SpiffeId
from tests.auth_svc.harness import Harness, MailedLink, embedded
from tests.auth_svc.sign_in.test_magic_links import CLIENT

PATIENCE_SECONDS = 10


class TestLogIn:
    async def test_opens_a_session(self, harness: Harness) -> None:
        """A link opens a session of its recipient, on the current device."""
        link = await harness.link()

        opened = await harness.sign_in.log_in(
            link.user_id.upper(),
            link.secret.upper(),
            client=CLIENT,
            user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        )

        verified = await harness.directory.find_session(opened.secret)
        assert verified is not None
        assert ("ada@example.org", ("applicant",)) == (verified.user.email, verified.user.labels)
        assert "Firefox on Linux" == verified.session.device
        assert re.fullmatch(r"[0-9a-f]{64}", opened.secret)

    async def test_works_once(self, harness: Harness) -> None:
        """A used link is rejected like an unknown one."""
        link = await harness.link()
        await harness.use(link)

        with pytest.raises(InvalidCredentialsError) as ei:
            await harness.use(link)
        assert "invalid_credentials" == ei.value.contract.code

    async def test_parallel_tries(self, harness: Harness) -> None:
        """Of 50 concurrent log-ins with one link, exactly one opens a session."""
        link = await harness.link()

        assert (1, 49) == await harness.use_at_once(link, 50)
        assert 1 == len(await harness.directory.sessions(link.user_id))

    async def test_expires(self, harness: Harness) -> None:
        """A link is valid until its tenth minute and no longer."""
        good, late = await harness.link("ada@example.org"), await harness.link("bob@example.org")

        harness.clock.advance(timedelta(minutes=10, seconds=-1))
        await harness.use(good)
        harness.clock.advance(timedelta(seconds=1))

        with pytest.raises(InvalidCredentialsError):
            await harness.use(late)

    async def test_new_link_voids_the_old(self, harness: Harness) -> None:
        """Only the newest link of a user is valid."""
        old, new = await harness.link(), await harness.link()

        with pytest.raises(InvalidCredentialsError):
            await harness.use(old)
        await harness.use(new)

    @pytest.mark.parametrize(("wrong", "works"), [(4, True), (5, False)])
    async def test_five_tries(self, harness: Harness, wrong: int, works: bool) -> None:
        """Four wrong secrets leave the link valid; the fifth invalidates it."""
        link = await harness.link()
        for number in range(wrong):
            with pytest.raises(InvalidCredentialsError):
                await harness.use(MailedLink(link.user_id, f"{number:064x}"))

        if works:
            await harness.use(link)
        else:
            with pytest.raises(InvalidCredentialsError):
                await harness.use(link)

    async def test_earlier_links_are_no_tries(self, harness: Harness) -> None:
        """
        Links that were replaced do not invalidate the newest one, however often they are tried.
        """
        old, newer, newest = [await harness.link() for _ in range(3)]
        harness.clock.advance(timedelta(minutes=1))
        for link in [old, newer] * 5:
            with pytest.raises(InvalidCredentialsError):
                await harness.use(link)

        await harness.use(newest)

    async def test_tries_of_one_do_not_hurt_another(self, harness: Harness) -> None:
        """Wrong secrets for one user do not invalidate links of another."""
        ada, bob = await harness.link("ada@example.org"), await harness.link("bob@example.org")
        for number in range(6):
            with pytest.raises(InvalidCredentialsError):
                await harness.use(MailedLink(ada.user_id, f"{number:064x}"))

        await harness.use(bob)

    async def test_somebody_elses_id(self, harness: Harness) -> None:
        """A valid secret with the id of another user opens nothing."""
        ada, bob = await harness.link("ada@example.org"), await harness.link("bob@example.org")

        with pytest.raises(InvalidCredentialsError):
            await harness.use(MailedLink(ada.user_id, bob.secret))

    @pytest.mark.parametrize(
        "failure",
        [
            UnavailableError("The provider is unavailable."),
            UpstreamError("The provider returned an invalid response."),
            RateLimitedError("Too many calls.", retry_after=timedelta(seconds=1)),
            RuntimeError("A defect."),
        ],
        ids=["unavailable", "upstream", "limited", "defect"],
    )
    async def test_provider_fails(self, harness: Harness, failure: Exception) -> None:
        """A link tried while the provider fails still works afterwards."""
        link = await harness.link()
        failing = Harness(harness.database, harness.clock, FailingDirectory(harness, failure))

        with pytest.raises(type(failure)):
            await failing.use(link)
        await harness.use(link)

    async def test_provider_is_slow(self, harness: Harness) -> None:
        """
        If the provider does not respond before the deadline, the error is UNAVAILABLE, and the
        link still works.
        """
        link = await harness.link()
        slow = Harness(harness.database, harness.clock, FailingDirectory(harness, None))

        async def use() -> None:
            enter_call(seconds=0.5)
            await slow.use(link)

        with pytest.raises(UnavailableError):
            await asyncio.create_task(use())
        await harness.use(link)

    async def test_cancelled(self, harness: Harness) -> None:
        """A link whose log-in is cancelled still works."""
        link = await harness.link()
        directory = FailingDirectory(harness, None)
        slow = asyncio.create_task(Harness(harness.database, harness.clock, directory).use(link))
        await directory.called.wait()

        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow

        await harness.use(link)

    async def test_refused_by_the_provider(self, harness: Harness) -> None:
        """A link that the provider rejects is used up."""
        link = await harness.link()
        refusing = Harness(
            harness.database, harness.clock, FailingDirectory(harness, InvalidCredentialsError())
        )

        for auth in (refusing, harness):
            with pytest.raises(InvalidCredentialsError):
                await auth.use(link)


def enter_call(seconds: float) -> None:
    """Continue as a call with a deadline."""
    ends_at = asyncio.get_running_loop().time() + seconds
    call.enter(call.Call("auth.LogIn", SpiffeId("amarre.local", "amarre", "gateway"), ends_at))


class FailingDirectory:
    """The embedded provider, but opening a session fails, or takes very long without a failure."""

    def __init__(self, harness: Harness, failure: Exception | None) -> None:
        inner = embedded(harness.database, harness.clock)
        self._failure = failure
        self.called = asyncio.Event()
        self.invite = inner.invite
        self.open_session_of = inner.open_session_of
        self.find_session = inner.find_session
        self.sessions = inner.sessions
        self.end_session = inner.end_session
        self.end_sessions = inner.end_sessions
        self.set_label = inner.set_label

    async def open_session(self, user_id: str, secret: str, *, user_agent: str) -> OpenedSession:
        """Fail, sooner or later."""
        self.called.set()
        if self._failure is not None:
            raise self._failure
        await asyncio.sleep(PATIENCE_SECONDS)
        raise AssertionError("Auth waits for longer than its deadline.")
