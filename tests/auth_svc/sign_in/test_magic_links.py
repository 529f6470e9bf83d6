"""Rules of signing in by magic link."""

import asyncio
import contextlib
import re
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select

from auth_svc.errors import InvalidCredentialsError, InvalidEmailError
from auth_svc.ports import OpenedSession
from auth_svc.sign_in.rate_limits import Limit, LinkLimits
from auth_svc.storage.retention import purge
from auth_svc.storage.tables import buckets, counters, links, sessions, users
from mesh.chassis.errors import RateLimitedError, UnavailableError
from tests.auth_svc.harness import Harness, MailedLink, embedded, link_in

CLIENT = "192.0.2.1"


async def sign_up(harness: Harness, email: str, client: str = CLIENT, language: str = "") -> None:
    await harness.sign_in.sign_up(email, client=client, language=language)


async def tables(harness: Harness) -> str:
    """Return the contents of the database as text."""
    found = []
    async with harness.database.transaction() as connection:
        for table in (users, sessions, links, counters, buckets):
            found += [repr(row) for row in await connection.execute(select(table))]
    return "\n".join(found)


class TestSignUp:
    async def test_link_is_mailed(self, harness: Harness) -> None:
        """
        The mail goes to the normalized address; both parts of its link are hexadecimal and the
        secret has 256 bits.
        """
        await sign_up(harness, "Ada@Example.ORG")

        (letter,) = harness.mailer.sent
        link = link_in(letter)
        assert "ada@example.org" == letter.to
        assert re.fullmatch(r"[0-9a-f]{20}", link.user_id)
        assert re.fullmatch(r"[0-9a-f]{64}", link.secret)

    @pytest.mark.parametrize(
        ("language", "subject", "minutes"),
        [
            ("", "Votre lien de connexion à AMARRE", "valable 10 minutes"),
            ("fr", "Votre lien de connexion à AMARRE", "valable 10 minutes"),
            ("en", "Your sign-in link for AMARRE", "valid for 10 minutes"),
        ],
        ids=["default", "French", "English"],
    )
    async def test_language(
        self, harness: Harness, language: str, subject: str, minutes: str
    ) -> None:
        """The mail is French unless English is requested; text and HTML have the same link."""
        await sign_up(harness, "ada@example.org", language=language)

        (letter,) = harness.mailer.sent
        link = link_in(letter)
        assert subject == letter.subject
        assert minutes in letter.text
        assert f"userId={link.user_id}&amp;secret={link.secret}" in letter.html

    async def test_known_contact_keeps_its_id(self, harness: Harness) -> None:
        """A user known to REDCap gets the id that REDCap has."""
        harness.contacts.known["ada@example.org"] = "64b7f0c2a1d3e4f5a6b7"

        link = await harness.link("ADA@example.org")

        assert "64b7f0c2a1d3e4f5a6b7" == link.user_id

    async def test_contact_with_another_form_of_id(self, harness: Harness) -> None:
        """An id that is not hexadecimal still gets a hexadecimal link, which opens its session."""
        harness.contacts.known["ada@example.org"] = "ada.lovelace_1815"
        link = await harness.link()

        verified = await harness.directory.find_session(await harness.use(link))

        assert re.fullmatch(r"[0-9a-f]{32}", link.user_id)
        assert verified is not None
        assert "ada.lovelace_1815" == verified.user.id

    async def test_id_of_somebody_else(self, harness: Harness) -> None:
        """An address that REDCap has under the id of another user does not get that identity."""
        taken = (await harness.link("ada@example.org")).user_id
        harness.contacts.known["eve@example.org"] = taken

        link = await harness.link("eve@example.org")

        assert taken != link.user_id
        verified = await harness.directory.find_session(await harness.use(link))
        assert verified is not None
        assert ("eve@example.org", link.user_id) == (verified.user.email, verified.user.id)

    async def test_same_person_same_id(self, harness: Harness) -> None:
        """Signing up again finds the same user."""
        first, second = await harness.link(), await harness.link("ADA@EXAMPLE.ORG")

        assert first.user_id == second.user_id

    @pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
    async def test_redcap_unavailable(self, harness: Harness, known: bool) -> None:
        """
        While REDCap is unavailable nobody gets a link, known or not, and no identity is created.
        """
        if known:
            await harness.link()
        before = (len(harness.mailer.sent), (await tables(harness)).count("labels"))
        harness.contacts.unavailable = True

        with pytest.raises(UnavailableError) as ei:
            await sign_up(harness, "ada@example.org")

        assert "unavailable" == ei.value.contract.code
        async with harness.database.transaction() as connection:
            assert int(known) == len((await connection.execute(select(users))).all())
        assert before[0] == len(harness.mailer.sent)

    async def test_mail_queue_is_full(self, harness: Harness) -> None:
        """If the mail queue is full, the user gets an error."""
        harness.mailer.full = True

        with pytest.raises(UnavailableError):
            await sign_up(harness, "ada@example.org")

    async def test_domain_not_allowed(self, harness: Harness) -> None:
        """An address of another domain gets no mail and leaves no data."""
        with pytest.raises(InvalidEmailError):
            await sign_up(harness, "a@example.org.evil.com")

        assert [] == harness.mailer.sent
        assert "" == await tables(harness)


def small(harness: Harness) -> Harness:
    """Return Auth with an overall limit of 20 links and a reserve of 10."""
    window = timedelta(minutes=10)
    links = LinkLimits(overall=Limit("links overall", 20, window), reserved=Limit("r", 10, window))
    return Harness(harness.database, harness.clock, harness.directory, link_limits=links)


def limited() -> float:
    """Return the number of requests that the overall limit rejected or sent to the reserve."""
    labels = {"limit": "links overall"}
    return REGISTRY.get_sample_value("amarre_auth_rate_limited_total", labels) or 0


class TestLimits:
    async def test_per_address(self, harness: Harness) -> None:
        """Of 300 requests for one address, at most 5 are mailed; the others get a retry delay."""
        refused = []
        for number in range(300):
            try:
                await sign_up(harness, "ada@example.org", client=f"198.51.{number}.1")
            except RateLimitedError as error:
                refused.append(error)

        assert 5 == len(harness.mailer.sent)
        assert 295 == len(refused)
        assert all(
            error.retry_after is not None
            and timedelta(0) < error.retry_after <= timedelta(minutes=15)
            for error in refused
        )

    async def test_what_is_refused_counts_nowhere(self, harness: Harness) -> None:
        """A flood for one address does not use up the limits of others behind the same client."""
        for _ in range(100):
            with contextlib.suppress(RateLimitedError):
                await sign_up(harness, "ada@example.org")

        await sign_up(harness, "bob@example.org")

        assert 6 == len(harness.mailer.sent)

    async def test_parallel_wishes(self, harness: Harness) -> None:
        """Of 40 concurrent requests for one address, at most 5 are mailed, across replicas."""
        await asyncio.gather(
            *(sign_up(harness, "ada@example.org", client=f"10.0.{n}.1") for n in range(40)),
            return_exceptions=True,
        )

        assert 5 == len(harness.mailer.sent)

    async def test_limit_ends(self, harness: Harness) -> None:
        """After the retry delay, the limit admits one more request."""
        for _ in range(5):
            await sign_up(harness, "ada@example.org")
        with pytest.raises(RateLimitedError) as ei:
            await sign_up(harness, "ada@example.org")
        assert ei.value.retry_after is not None

        harness.clock.advance(ei.value.retry_after)
        await sign_up(harness, "ada@example.org")

        assert 6 == len(harness.mailer.sent)

    @pytest.mark.parametrize(
        "client",
        ["192.0.2.7", "2001:db8:1:2::{n:x}", "::ffff:192.0.2.7", ""],
        ids=["IPv4", "one IPv6 network", "mapped IPv4", "unknown"],
    )
    async def test_per_client(self, harness: Harness, client: str) -> None:
        """
        One client gets 60 links within 10 minutes, for any addresses; others are not affected.
        """
        for number in range(60):
            await sign_up(harness, f"a{number}@example.org", client=client.format(n=number))

        with pytest.raises(RateLimitedError):
            await sign_up(harness, "b@example.org", client=client.format(n=61))
        await sign_up(harness, "b@example.org", client="203.0.113.5")

    async def test_overall(self, harness: Harness) -> None:
        """All clients together get no more than the overall limit and the reserve."""
        harness = small(harness)
        granted = 0
        for number in range(100):
            with contextlib.suppress(RateLimitedError):
                await sign_up(harness, f"a{number}@example.org", client=f"10.0.{number}.1")
                granted += 1

        assert 20 + 10 == granted

    async def test_flood_leaves_a_reserve(self, harness: Harness) -> None:
        """
        Exhausting the overall limit from some networks does not affect sign-up from others, mailed
        links, sessions and passkeys.
        """
        harness = small(harness)
        link = await harness.link("early@example.org")
        before = limited()
        for number in range(200):
            with contextlib.suppress(RateLimitedError):
                await sign_up(harness, f"a{number}@example.org", client=f"10.0.{number % 3}.1")
        assert limited() > before

        await sign_up(harness, "late@example.org", client="203.0.113.5")
        secret = await harness.use(link)
        await harness.passkeys.begin_log_in("203.0.113.5")
        assert await harness.directory.find_session(secret) is not None

    async def test_overall_refills_evenly(self, harness: Harness) -> None:
        """After a flood, links become available one by one, not all after the window."""
        harness = small(harness)
        for number in range(40):
            with contextlib.suppress(RateLimitedError):
                await sign_up(harness, f"a{number}@example.org", client=f"10.0.{number}.1")

        harness.clock.advance(timedelta(seconds=60))
        await sign_up(harness, "b@example.org", client="10.0.0.1")
        await sign_up(harness, "c@example.org", client="10.0.20.1")

    async def test_log_ins_per_client(self, harness: Harness) -> None:
        """Of 300 guesses from one client, at most 200 are checked."""
        outcomes = {InvalidCredentialsError: 0, RateLimitedError: 0}
        for number in range(300):
            with pytest.raises(tuple(outcomes)) as ei:
                await harness.use(MailedLink("ab", f"{number:064x}"))
            outcomes[ei.type] += 1

        assert {InvalidCredentialsError: 200, RateLimitedError: 100} == outcomes

    async def test_lifted(self, harness: Harness) -> None:
        """With limits off, everything is admitted."""
        free = Harness(harness.database, harness.clock, harness.directory, limited=False)
        for _ in range(20):
            await sign_up(free, "ada@example.org")

        assert 20 == len(free.mailer.sent)


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

        results = await asyncio.gather(
            *(harness.use(link) for _ in range(50)), return_exceptions=True
        )

        assert 1 == sum(isinstance(result, str) for result in results)
        assert 49 == sum(isinstance(result, InvalidCredentialsError) for result in results)
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

    async def test_provider_unavailable(self, harness: Harness) -> None:
        """A link tried while the provider is unavailable still works afterwards."""
        link = await harness.link()
        unavailable = Harness(
            harness.database, harness.clock, UnavailableDirectory(harness.database, harness.clock)
        )

        with pytest.raises(UnavailableError):
            await unavailable.use(link)
        await harness.use(link)


class UnavailableDirectory:
    """The embedded provider, but it cannot open sessions."""

    def __init__(self, database: object, clock: object) -> None:
        inner = embedded(database, clock)  # type: ignore[arg-type]
        self.invite = inner.invite
        self.open_session_of = inner.open_session_of
        self.find_session = inner.find_session
        self.sessions = inner.sessions
        self.end_session = inner.end_session
        self.end_sessions = inner.end_sessions
        self.set_label = inner.set_label

    async def open_session(self, user_id: str, secret: str, *, user_agent: str) -> OpenedSession:
        """Fail."""
        raise UnavailableError("The provider is unavailable.")


class TestWhatIsKept:
    async def test_no_secret_and_no_address_of_limits(self, harness: Harness) -> None:
        """The database contains no secrets, and counters contain no addresses."""
        pending, used = await harness.link("bob@example.org"), await harness.link("ada@example.org")
        secret = await harness.use(used)

        text = await tables(harness)
        for hidden in (pending.secret, used.secret, secret, CLIENT):
            assert hidden not in text
        assert 1 == text.count("ada@example.org")

    async def test_purge(self, harness: Harness) -> None:
        """Expired rows are deleted, others are kept."""
        await harness.link("bob@example.org")
        harness.clock.advance(timedelta(days=2))
        kept = await harness.link("ada@example.org")

        await purge(harness.database, harness.clock() - timedelta(days=1))

        async with harness.database.transaction() as connection:
            handles = (await connection.execute(select(links.c.handle))).scalars().all()
        assert [kept.user_id] == list(handles)
