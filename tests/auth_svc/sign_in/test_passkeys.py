"""Rules of passkeys, with a software authenticator."""

import asyncio
import json
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from auth_svc.errors import InvalidCredentialsError
from auth_svc.ports import User
from auth_svc.sign_in.passkeys import MAX_PASSKEYS, Passkey
from mesh.chassis.errors import (
    ConflictError,
    InvalidRequestError,
    RateLimitedError,
    SecondFactorRequiredError,
)
from tests.auth_svc.authenticator import PRESENT, VERIFIED, Authenticator, challenge_of
from tests.auth_svc.harness import FIREFOX, Harness

CLIENT = "192.0.2.1"


async def signed_in(harness: Harness, email: str = "ada@example.org") -> User:
    verified = await harness.directory.find_session(await harness.use(await harness.link(email)))
    assert verified is not None
    return verified.user


async def add(harness: Harness, user: User, device: Authenticator, name: str = "Laptop") -> Passkey:
    begun = await harness.passkeys.begin(user.id, user.email)
    answer = device.create(begun.options_json)
    return await harness.passkeys.add(user.id, begun.ceremony_id, answer, name=name)


async def log_in(harness: Harness, device: Authenticator) -> str:
    begun = await harness.passkeys.begin_log_in(CLIENT)
    opened = await harness.passkeys.log_in(
        begun.ceremony_id, device.get(begun.options_json), client=CLIENT, user_agent=FIREFOX
    )
    return opened.secret


def _opened() -> float:
    labels = {"event": "opened_by_passkey"}
    return REGISTRY.get_sample_value("amarre_auth_sessions_total", labels) or 0


class TestAdd:
    async def test_whole_way(self, harness: Harness) -> None:
        """A passkey registered after the first sign-in opens a session without mail."""
        ada, device = await signed_in(harness), Authenticator()
        passkey = await add(harness, ada, device)
        mails = len(harness.mailer.sent)
        opened = _opened()

        verified = await harness.directory.find_session(await log_in(harness, device))

        assert verified is not None
        assert (ada.id, "Firefox on Linux") == (verified.user.id, verified.session.device)
        assert mails == len(harness.mailer.sent)
        assert _opened() == opened + 1
        (listed,) = await harness.passkeys.of_user(ada.id)
        assert (passkey.id, "Laptop") == (listed.id, listed.name)
        assert harness.clock() == listed.used_at

    async def test_options(self, harness: Harness) -> None:
        """
        User verification is required, passkeys are discoverable, and existing ones excluded;
        challenges are unique.
        """
        ada = await signed_in(harness)
        passkey = await add(harness, ada, Authenticator())

        one, two = [await harness.passkeys.begin(ada.id, ada.email) for _ in range(2)]
        options = json.loads(one.options_json)

        wanted = options["authenticatorSelection"]
        assert ("required", "required") == (wanted["userVerification"], wanted["residentKey"])
        assert [passkey.id] == [known["id"] for known in options["excludeCredentials"]]
        assert "localhost" == options["rp"]["id"]
        assert challenge_of(one.options_json) != challenge_of(two.options_json)
        assert 32 <= len(challenge_of(one.options_json))

    @pytest.mark.parametrize(
        "device",
        [
            Authenticator(origin="http://localhost:3001"),
            Authenticator(origin="https://evil.example"),
            Authenticator(party="evil.example"),
            Authenticator(flags=PRESENT),
            Authenticator(flags=VERIFIED),
        ],
        ids=["other port", "other origin", "other domain", "not verified", "not present"],
    )
    async def test_refused(self, harness: Harness, device: Authenticator) -> None:
        """
        A response from another origin, for another domain or without verification is rejected.
        """
        ada = await signed_in(harness)

        with pytest.raises(InvalidRequestError):
            await add(harness, ada, device)
        assert [] == await harness.passkeys.of_user(ada.id)

    @pytest.mark.parametrize("answer", ["", "{", "[]", "7", "{}", '{"id": 1}', "é" * 5_000])
    async def test_malformed(self, harness: Harness, answer: str) -> None:
        """Anything that is not a WebAuthn response is rejected without a crash."""
        ada = await signed_in(harness)
        begun = await harness.passkeys.begin(ada.id, ada.email)

        with pytest.raises(InvalidRequestError):
            await harness.passkeys.add(ada.id, begun.ceremony_id, answer, name="")

    async def test_challenge_of_another(self, harness: Harness) -> None:
        """A ceremony works once, within five minutes, and only for the user who started it."""
        ada, bob = await signed_in(harness), await signed_in(harness, "bob@example.org")
        begun = await harness.passkeys.begin(ada.id, ada.email)
        answer = Authenticator().create(begun.options_json)

        with pytest.raises(InvalidRequestError):
            await harness.passkeys.add(bob.id, begun.ceremony_id, answer, name="")
        with pytest.raises(InvalidRequestError):
            await harness.passkeys.add(ada.id, begun.ceremony_id, answer, name="")

        late = await harness.passkeys.begin(ada.id, ada.email)
        harness.clock.advance(timedelta(minutes=5))
        answer = Authenticator().create(late.options_json)
        with pytest.raises(InvalidRequestError):
            await harness.passkeys.add(ada.id, late.ceremony_id, answer, name="")

    async def test_ceremony_of_a_sign_in(self, harness: Harness) -> None:
        """A challenge of a sign-in cannot register a passkey."""
        ada = await signed_in(harness)
        begun = await harness.passkeys.begin_log_in(CLIENT)
        options = json.loads(begun.options_json) | {"user": {"id": "YQ"}}

        with pytest.raises(InvalidRequestError):
            await harness.passkeys.add(
                ada.id, begun.ceremony_id, Authenticator().create(json.dumps(options)), name=""
            )

    async def test_most(self, harness: Harness) -> None:
        """
        A user has at most 20 passkeys, also with concurrent registrations; a passkey of another
        user cannot be added.
        """
        ada, bob = await signed_in(harness), await signed_in(harness, "bob@example.org")
        device = Authenticator()
        await add(harness, ada, device)
        with pytest.raises(ConflictError):
            await add(harness, bob, device)
        for _ in range(MAX_PASSKEYS - 1):
            await add(harness, ada, Authenticator())

        with pytest.raises(ConflictError):
            await add(harness, ada, Authenticator())
        assert MAX_PASSKEYS == len(await harness.passkeys.of_user(ada.id))

    async def test_remove(self, harness: Harness) -> None:
        """A removed passkey no longer works; only its owner can remove it, idempotently."""
        ada, bob = await signed_in(harness), await signed_in(harness, "bob@example.org")
        device = Authenticator()
        passkey = await add(harness, ada, device)

        await harness.passkeys.remove(bob.id, passkey.id)
        await log_in(harness, device)
        await harness.passkeys.remove(ada.id, passkey.id)
        await harness.passkeys.remove(ada.id, passkey.id)

        with pytest.raises(InvalidCredentialsError):
            await log_in(harness, device)


class TestSecondFactor:
    async def test_link_alone_adds_the_first_one_only(self, harness: Harness) -> None:
        """
        A user with only a link can register a first passkey but no second one, not even if both
        were started before.
        """
        ada = await signed_in(harness)
        begun = [await harness.passkeys.begin(ada.id, ada.email, partial=True) for _ in range(2)]
        answers = [Authenticator().create(one.options_json) for one in begun]

        await harness.passkeys.add(ada.id, begun[0].ceremony_id, answers[0], name="", partial=True)
        with pytest.raises(SecondFactorRequiredError):
            await harness.passkeys.add(
                ada.id, begun[1].ceremony_id, answers[1], name="", partial=True
            )
        with pytest.raises(SecondFactorRequiredError):
            await harness.passkeys.begin(ada.id, ada.email, partial=True)
        assert 1 == len(await harness.passkeys.of_user(ada.id))

    async def test_chosen(self, harness: Harness) -> None:
        """
        A user with a passkey can opt in, and then the last passkey cannot be removed until they opt
        out.
        """
        ada = await signed_in(harness)
        with pytest.raises(ConflictError):
            await harness.passkeys.ask_for(ada.id, required=True)
        one, two = [await add(harness, ada, Authenticator()) for _ in range(2)]
        await harness.passkeys.ask_for(ada.id, required=True)

        await harness.passkeys.remove(ada.id, one.id, keep_one=True)
        with pytest.raises(ConflictError):
            await harness.passkeys.remove(ada.id, two.id, keep_one=True)
        assert [two.id] == [known.id for known in await harness.passkeys.of_user(ada.id)]


class TestLogIn:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("origin", "https://evil.example"),
            ("party", "evil.example"),
            ("flags", PRESENT),
            ("key", Authenticator().key),
            ("id", b"x" * 32),
            ("user_handle", "Ym9i"),
            ("user_handle", ""),
        ],
        ids=["origin", "domain", "not verified", "key", "unknown", "other user", "no user"],
    )
    async def test_refused(self, harness: Harness, name: str, value: object) -> None:
        """A passkey from another origin, forged or of another user opens nothing."""
        ada, device = await signed_in(harness), Authenticator()
        await add(harness, ada, device)
        setattr(device, name, value)

        with pytest.raises(InvalidCredentialsError):
            await log_in(harness, device)

    async def test_challenge_works_once(self, harness: Harness) -> None:
        """Of 20 concurrent sign-ins with one response, one opens a session; later ones none."""
        ada, device = await signed_in(harness), Authenticator()
        await add(harness, ada, device)
        begun = await harness.passkeys.begin_log_in(CLIENT)
        answer = device.get(begun.options_json)

        async def show() -> str:
            opened = await harness.passkeys.log_in(
                begun.ceremony_id, answer, client=CLIENT, user_agent=""
            )
            return opened.secret

        results = await asyncio.gather(*(show() for _ in range(20)), return_exceptions=True)

        assert 1 == sum(isinstance(result, str) for result in results)
        assert 19 == sum(isinstance(result, InvalidCredentialsError) for result in results)

    async def test_challenge_ends(self, harness: Harness) -> None:
        """A challenge expires after five minutes."""
        ada, device = await signed_in(harness), Authenticator()
        await add(harness, ada, device)
        begun = await harness.passkeys.begin_log_in(CLIENT)
        harness.clock.advance(timedelta(minutes=5))

        with pytest.raises(InvalidCredentialsError):
            await harness.passkeys.log_in(
                begun.ceremony_id, device.get(begun.options_json), client=CLIENT, user_agent=""
            )

    async def test_copied_key(self, harness: Harness) -> None:
        """If an authenticator counts, a cloned one that is behind opens nothing."""
        ada, device = await signed_in(harness), Authenticator(counts=True)
        await add(harness, ada, device)
        for _ in range(3):
            await log_in(harness, device)

        device.count = 1
        with pytest.raises(InvalidCredentialsError):
            await log_in(harness, device)

    @pytest.mark.parametrize("answer", ["", "{", "[]", "7", "{}", '{"id": 1}'])
    async def test_malformed(self, harness: Harness, answer: str) -> None:
        """Anything that is not a WebAuthn response is rejected without a crash."""
        begun = await harness.passkeys.begin_log_in(CLIENT)

        with pytest.raises(InvalidCredentialsError):
            await harness.passkeys.log_in(begun.ceremony_id, answer, client=CLIENT, user_agent="")

    async def test_limit(self, harness: Harness) -> None:
        """Starting and finishing count on the same limit as attempts of links."""
        for _ in range(200):
            await harness.passkeys.begin_log_in(CLIENT)

        with pytest.raises(RateLimitedError):
            await harness.passkeys.begin_log_in(CLIENT)
