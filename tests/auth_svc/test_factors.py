"""Passkeys and the second factor over the contract."""

from datetime import timedelta
from typing import Any

from amarre.auth.v1 import auth_service_pb2 as pb

from auth_svc.sessions.second_factor import SecondFactorPolicy
from tests.auth_svc.authenticator import Authenticator
from tests.auth_svc.calls import as_user, log_in, named, reason_of, sign_up
from tests.auth_svc.harness import Harness


class TestFactors:
    """Access of a session depending on how, and how long ago, it was opened."""

    async def test_not_fresh(self, auth: Any, harness: Harness) -> None:
        """
        Eleven minutes after signing in, only changes to sign-in methods require a fresh sign-in.
        """
        harness.clock.advance(timedelta(minutes=-11))
        secret = (await log_in(auth, await sign_up(auth, harness))).session_secret
        harness.clock.advance(timedelta(minutes=11))
        who = await as_user(auth, secret)

        for request in (
            auth.BeginPasskey(pb.BeginPasskeyRequest(), metadata=who),
            auth.AddPasskey(
                pb.AddPasskeyRequest(ceremony_id="0" * 32, credential_json="{}"), metadata=who
            ),
            auth.RemovePasskey(pb.RemovePasskeyRequest(id="one"), metadata=who),
            auth.SetSecondFactor(pb.SetSecondFactorRequest(required=True), metadata=who),
            auth.EndSession(pb.EndSessionRequest(id="one"), metadata=who),
        ):
            assert "FRESH_SIGN_IN_REQUIRED" == await named(request)
        await auth.ListPasskeys(pb.ListPasskeysRequest(), metadata=who)
        await auth.ListSessions(pb.ListSessionsRequest(), metadata=who)
        await auth.LogOut(pb.LogOutRequest(everywhere=True), metadata=who)

    async def test_link_then_passkey(self, auth: Any, harness: Harness) -> None:
        """
        With a second factor, a session by link only permits the passkey step, and everything once
        the passkey is presented; only a clear request turns it off.
        """
        by_link = (await log_in(auth, await sign_up(auth, harness))).session_secret
        who = await as_user(auth, by_link)
        device = Authenticator()
        begun = await auth.BeginPasskey(pb.BeginPasskeyRequest(), metadata=who)
        await auth.AddPasskey(
            pb.AddPasskeyRequest(
                ceremony_id=begun.ceremony_id, credential_json=device.create(begun.options_json)
            ),
            metadata=who,
        )
        asked = await auth.SetSecondFactor(pb.SetSecondFactorRequest(required=True), metadata=who)
        assert asked.required

        who = await as_user(auth, by_link)
        for request in (
            auth.ListSessions(pb.ListSessionsRequest(), metadata=who),
            auth.EndSession(pb.EndSessionRequest(id="one"), metadata=who),
            auth.BeginPasskey(pb.BeginPasskeyRequest(), metadata=who),
            auth.RemovePasskey(pb.RemovePasskeyRequest(id="one"), metadata=who),
            auth.SetSecondFactor(pb.SetSecondFactorRequest(), metadata=who),
        ):
            assert "SECOND_FACTOR_REQUIRED" == await named(request)
        await auth.GetProfile(pb.GetProfileRequest(), metadata=who)
        listed = await auth.ListPasskeys(pb.ListPasskeysRequest(), metadata=who)
        assert 1 == len(listed.passkeys)

        begun = await auth.BeginPasskeyLogIn(pb.BeginPasskeyLogInRequest())
        opened = await auth.LogInWithPasskey(
            pb.LogInWithPasskeyRequest(
                ceremony_id=begun.ceremony_id, credential_json=device.get(begun.options_json)
            )
        )
        who = await as_user(auth, opened.session_secret)
        await auth.ListSessions(pb.ListSessionsRequest(), metadata=who)
        unclear = auth.SetSecondFactor(pb.SetSecondFactorRequest(), metadata=who)
        assert "INVALID_REQUEST" == await named(unclear)
        released = await auth.SetSecondFactor(
            pb.SetSecondFactorRequest(required=False), metadata=who
        )
        assert not released.required
        await auth.ListSessions(pb.ListSessionsRequest(), metadata=await as_user(auth, by_link))

    async def test_asked_of_everybody(self, auth: Any, harness: Harness) -> None:
        """If everyone needs a passkey, nobody can opt out or remove their last one."""
        harness.sessions.second_factor = SecondFactorPolicy("everybody")
        who = await as_user(auth, (await log_in(auth, await sign_up(auth, harness))).session_secret)
        device = Authenticator()
        begun = await auth.BeginPasskey(pb.BeginPasskeyRequest(), metadata=who)
        added = await auth.AddPasskey(
            pb.AddPasskeyRequest(
                ceremony_id=begun.ceremony_id, credential_json=device.create(begun.options_json)
            ),
            metadata=who,
        )
        begun = await auth.BeginPasskeyLogIn(pb.BeginPasskeyLogInRequest())
        opened = await auth.LogInWithPasskey(
            pb.LogInWithPasskeyRequest(
                ceremony_id=begun.ceremony_id, credential_json=device.get(begun.options_json)
            )
        )
        who = await as_user(auth, opened.session_secret)

        for request in (
            auth.SetSecondFactor(pb.SetSecondFactorRequest(required=False), metadata=who),
            auth.RemovePasskey(pb.RemovePasskeyRequest(id=added.passkey.id), metadata=who),
        ):
            assert "CONFLICT" == await named(request)

    async def test_no_console(self, auth: Any, harness: Harness) -> None:
        """Only operators learn whether there is a console; without one, the error says so."""
        secret = (await log_in(auth, await sign_up(auth, harness))).session_secret
        who = await as_user(auth, secret)
        assert "PERMISSION_DENIED" == await named(
            auth.EnterConsole(pb.EnterConsoleRequest(), metadata=who)
        )
        user = (await auth.GetProfile(pb.GetProfileRequest(), metadata=who)).user
        await harness.directory.set_label(user.id, "operator", on=True)
        await harness.sessions.user_changed(user.id)
        assert "NOT_FOUND" == await named(
            auth.EnterConsole(pb.EnterConsoleRequest(), metadata=await as_user(auth, secret))
        )


class TestPasskeys:
    async def test_whole_way(self, auth: Any, harness: Harness) -> None:
        """A passkey is registered, listed, used to sign in, and removed, each over the contract."""
        secret = (await log_in(auth, await sign_up(auth, harness))).session_secret
        who, device = await as_user(auth, secret), Authenticator()
        begun = await auth.BeginPasskey(pb.BeginPasskeyRequest(), metadata=who)
        added = await auth.AddPasskey(
            pb.AddPasskeyRequest(
                ceremony_id=begun.ceremony_id,
                credential_json=device.create(begun.options_json),
                name="Laptop",
            ),
            metadata=who,
        )
        assert not added.passkey.HasField("use_time")

        begun = await auth.BeginPasskeyLogIn(pb.BeginPasskeyLogInRequest())
        opened = await auth.LogInWithPasskey(
            pb.LogInWithPasskeyRequest(
                ceremony_id=begun.ceremony_id, credential_json=device.get(begun.options_json)
            )
        )
        assert opened.logged_in
        who = await as_user(auth, opened.session_secret)
        (listed,) = (await auth.ListPasskeys(pb.ListPasskeysRequest(), metadata=who)).passkeys
        assert (added.passkey.id, "Laptop", True) == (
            listed.id,
            listed.name,
            listed.HasField("use_time"),
        )
        removed = await auth.RemovePasskey(pb.RemovePasskeyRequest(id=listed.id), metadata=who)
        assert removed.removed
        assert not (await auth.ListPasskeys(pb.ListPasskeysRequest(), metadata=who)).passkeys

    async def test_unknown(self, auth: Any) -> None:
        """An unknown passkey is invalid_credentials."""
        begun = await auth.BeginPasskeyLogIn(pb.BeginPasskeyLogInRequest())
        device = Authenticator(user_handle="YWRh")
        call = auth.LogInWithPasskey(
            pb.LogInWithPasskeyRequest(
                ceremony_id=begun.ceremony_id, credential_json=device.get(begun.options_json)
            )
        )

        assert ("UNAUTHENTICATED", "invalid_credentials") == await reason_of(call)
