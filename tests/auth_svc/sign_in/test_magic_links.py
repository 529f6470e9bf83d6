"""Rules of signing in by magic link."""

import re
from datetime import timedelta

import pytest
from sqlalchemy import select

from auth_svc.errors import InvalidEmailError
from auth_svc.storage.retention import ISSUED_LINKS_KEPT, purge
from auth_svc.storage.tables import buckets, counters, issued_links, links, sessions, users
from mesh.chassis.errors import UnavailableError
from tests.auth_svc.harness import Harness, link_in

CLIENT = "192.0.2.1"


async def sign_up(harness: Harness, email: str, client: str = CLIENT, language: str = "") -> None:
    await harness.sign_in.sign_up(email, client=client, language=language)


async def tables(harness: Harness) -> str:
    """Return the contents of the database as text."""
    found = []
    async with harness.database.transaction() as connection:
        for table in (users, sessions, links, issued_links, counters, buckets):
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
            known = (await connection.execute(select(issued_links))).all()
        assert [kept.user_id] == list(handles)
        assert 2 == len(known)

    async def test_purge_of_issued_links(self, harness: Harness) -> None:
        """Hashes of links are deleted after a month."""
        await harness.link()
        harness.clock.advance(ISSUED_LINKS_KEPT + timedelta(minutes=10))
        await purge(harness.database, harness.clock())
        async with harness.database.transaction() as connection:
            kept = (await connection.execute(select(issued_links))).all()
        await purge(harness.database, harness.clock() + timedelta(seconds=1))

        async with harness.database.transaction() as connection:
            left = (await connection.execute(select(issued_links))).all()
        assert (1, 0) == (len(kept), len(left))
