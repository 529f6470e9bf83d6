"""The rules of passkeys, with a software authenticator."""

import asyncio
import json
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from auth_svc.errors import InvalidCredentialsError
from auth_svc.passkeys import MOST_PASSKEYS, Passkey
from auth_svc.ports import User
from mesh.chassis.errors import (
    ConflictError,
    InvalidRequestError,
    RateLimitedError,
    SecondFactorRequiredError,
)
from tests.auth_svc.authenticator import PRESENT, VERIFIED, Authenticator, challenge_of
from tests.auth_svc.world import FIREFOX, World

CLIENT = "192.0.2.1"


async def signed_in(world: World, email: str = "ada@example.org") -> User:
    verified = await world.directory.find_session(await world.use(await world.link(email)))
    assert verified is not None
    return verified.user


async def add(world: World, user: User, device: Authenticator, name: str = "Laptop") -> Passkey:
    begun = await world.passkeys.begin(user.id, user.email)
    answer = device.create(begun.options_json)
    return await world.passkeys.add(user.id, begun.ceremony_id, answer, name=name)


async def log_in(world: World, device: Authenticator) -> str:
    begun = await world.passkeys.begin_log_in(CLIENT)
    opened = await world.passkeys.log_in(
        begun.ceremony_id, device.get(begun.options_json), client=CLIENT, user_agent=FIREFOX
    )
    return opened.secret


def _opened() -> float:
    labels = {"event": "opened_by_passkey"}
    return REGISTRY.get_sample_value("amarre_auth_sessions_total", labels) or 0


class TestAdd:
    async def test_whole_way(self, world: World) -> None:
        """
        A passkey made after the first sign-in opens a session without mail.
        """
        ada, device = await signed_in(world), Authenticator()
        passkey = await add(world, ada, device)
        mails = len(world.mailer.letters)
        opened = _opened()

        verified = await world.directory.find_session(await log_in(world, device))

        assert verified is not None
        assert (ada.id, "Firefox on Linux") == (verified.user.id, verified.session.device)
        assert mails == len(world.mailer.letters)
        assert _opened() == opened + 1
        (listed,) = await world.passkeys.of_user(ada.id)
        assert (passkey.id, "Laptop") == (listed.id, listed.name)
        assert world.clock() == listed.used_at

    async def test_options(self, world: World) -> None:
        """
        The person must be verified, the passkey found without a name, and known ones left out;
        no challenge comes twice.
        """
        ada = await signed_in(world)
        passkey = await add(world, ada, Authenticator())

        one, two = [await world.passkeys.begin(ada.id, ada.email) for _ in range(2)]
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
    async def test_refused(self, world: World, device: Authenticator) -> None:
        """
        An answer from another page, for another domain or without verification adds nothing.
        """
        ada = await signed_in(world)

        with pytest.raises(InvalidRequestError):
            await add(world, ada, device)
        assert [] == await world.passkeys.of_user(ada.id)

    @pytest.mark.parametrize("answer", ["", "{", "[]", "7", "{}", '{"id": 1}', "é" * 5_000])
    async def test_malformed(self, world: World, answer: str) -> None:
        """
        What is no answer at all is refused, not a crash.
        """
        ada = await signed_in(world)
        begun = await world.passkeys.begin(ada.id, ada.email)

        with pytest.raises(InvalidRequestError):
            await world.passkeys.add(ada.id, begun.ceremony_id, answer, name="")

    async def test_challenge_of_another(self, world: World) -> None:
        """
        A ceremony works once, within five minutes, and for the person who began it.
        """
        ada, bob = await signed_in(world), await signed_in(world, "bob@example.org")
        begun = await world.passkeys.begin(ada.id, ada.email)
        answer = Authenticator().create(begun.options_json)

        with pytest.raises(InvalidRequestError):
            await world.passkeys.add(bob.id, begun.ceremony_id, answer, name="")
        with pytest.raises(InvalidRequestError):
            await world.passkeys.add(ada.id, begun.ceremony_id, answer, name="")

        late = await world.passkeys.begin(ada.id, ada.email)
        world.clock.advance(timedelta(minutes=5))
        answer = Authenticator().create(late.options_json)
        with pytest.raises(InvalidRequestError):
            await world.passkeys.add(ada.id, late.ceremony_id, answer, name="")

    async def test_ceremony_of_a_sign_in(self, world: World) -> None:
        """
        A challenge of a sign-in adds no passkey.
        """
        ada = await signed_in(world)
        begun = await world.passkeys.begin_log_in(CLIENT)
        options = json.loads(begun.options_json) | {"user": {"id": "YQ"}}

        with pytest.raises(InvalidRequestError):
            await world.passkeys.add(
                ada.id, begun.ceremony_id, Authenticator().create(json.dumps(options)), name=""
            )

    async def test_most(self, world: World) -> None:
        """
        A user has at most 20 passkeys, also when they are added at the same time; nobody adds
        that of another.
        """
        ada, bob = await signed_in(world), await signed_in(world, "bob@example.org")
        device = Authenticator()
        await add(world, ada, device)
        with pytest.raises(ConflictError):
            await add(world, bob, device)
        for _ in range(MOST_PASSKEYS - 1):
            await add(world, ada, Authenticator())

        with pytest.raises(ConflictError):
            await add(world, ada, Authenticator())
        assert MOST_PASSKEYS == len(await world.passkeys.of_user(ada.id))

    async def test_remove(self, world: World) -> None:
        """
        A removed passkey opens nothing; nobody removes that of another; twice is no fault.
        """
        ada, bob = await signed_in(world), await signed_in(world, "bob@example.org")
        device = Authenticator()
        passkey = await add(world, ada, device)

        await world.passkeys.remove(bob.id, passkey.id)
        await log_in(world, device)
        await world.passkeys.remove(ada.id, passkey.id)
        await world.passkeys.remove(ada.id, passkey.id)

        with pytest.raises(InvalidCredentialsError):
            await log_in(world, device)


class TestSecondFactor:
    async def test_link_alone_adds_the_first_one_only(self, world: World) -> None:
        """
        Who has shown a link alone adds a first passkey, and no other beside it, not even when
        both were begun before.
        """
        ada = await signed_in(world)
        begun = [await world.passkeys.begin(ada.id, ada.email, partial=True) for _ in range(2)]
        answers = [Authenticator().create(one.options_json) for one in begun]

        await world.passkeys.add(ada.id, begun[0].ceremony_id, answers[0], name="", partial=True)
        with pytest.raises(SecondFactorRequiredError):
            await world.passkeys.add(
                ada.id, begun[1].ceremony_id, answers[1], name="", partial=True
            )
        with pytest.raises(SecondFactorRequiredError):
            await world.passkeys.begin(ada.id, ada.email, partial=True)
        assert 1 == len(await world.passkeys.of_user(ada.id))

    async def test_chosen(self, world: World) -> None:
        """
        It can be chosen by who has a passkey, and then the last one stays until it is not.
        """
        ada = await signed_in(world)
        with pytest.raises(ConflictError):
            await world.passkeys.ask_for(ada.id, required=True)
        one, two = [await add(world, ada, Authenticator()) for _ in range(2)]
        await world.passkeys.ask_for(ada.id, required=True)

        await world.passkeys.remove(ada.id, one.id, asked_for=True)
        with pytest.raises(ConflictError):
            await world.passkeys.remove(ada.id, two.id, asked_for=True)
        assert [two.id] == [known.id for known in await world.passkeys.of_user(ada.id)]


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
    async def test_refused(self, world: World, name: str, value: object) -> None:
        """
        A passkey shown by another page, forged or of another user opens nothing.
        """
        ada, device = await signed_in(world), Authenticator()
        await add(world, ada, device)
        setattr(device, name, value)

        with pytest.raises(InvalidCredentialsError):
            await log_in(world, device)

    async def test_challenge_works_once(self, world: World) -> None:
        """
        Of 20 parallel sign-ins with one answer one opens a session; later ones none.
        """
        ada, device = await signed_in(world), Authenticator()
        await add(world, ada, device)
        begun = await world.passkeys.begin_log_in(CLIENT)
        answer = device.get(begun.options_json)

        async def show() -> str:
            opened = await world.passkeys.log_in(
                begun.ceremony_id, answer, client=CLIENT, user_agent=""
            )
            return opened.secret

        results = await asyncio.gather(*(show() for _ in range(20)), return_exceptions=True)

        assert 1 == sum(isinstance(result, str) for result in results)
        assert 19 == sum(isinstance(result, InvalidCredentialsError) for result in results)

    async def test_challenge_ends(self, world: World) -> None:
        """
        A challenge ends after five minutes.
        """
        ada, device = await signed_in(world), Authenticator()
        await add(world, ada, device)
        begun = await world.passkeys.begin_log_in(CLIENT)
        world.clock.advance(timedelta(minutes=5))

        with pytest.raises(InvalidCredentialsError):
            await world.passkeys.log_in(
                begun.ceremony_id, device.get(begun.options_json), client=CLIENT, user_agent=""
            )

    async def test_copied_key(self, world: World) -> None:
        """
        Where an authenticator counts, a copy that is behind opens nothing.
        """
        ada, device = await signed_in(world), Authenticator(counts=True)
        await add(world, ada, device)
        for _ in range(3):
            await log_in(world, device)

        device.count = 1
        with pytest.raises(InvalidCredentialsError):
            await log_in(world, device)

    @pytest.mark.parametrize("answer", ["", "{", "[]", "7", "{}", '{"id": 1}'])
    async def test_malformed(self, world: World, answer: str) -> None:
        """
        What is no answer at all is refused, not a crash.
        """
        begun = await world.passkeys.begin_log_in(CLIENT)

        with pytest.raises(InvalidCredentialsError):
            await world.passkeys.log_in(begun.ceremony_id, answer, client=CLIENT, user_agent="")

    async def test_limit(self, world: World) -> None:
        """
        Beginning and finishing count together with the tries of links.
        """
        for _ in range(200):
            await world.passkeys.begin_log_in(CLIENT)

        with pytest.raises(RateLimitedError):
            await world.passkeys.begin_log_in(CLIENT)
