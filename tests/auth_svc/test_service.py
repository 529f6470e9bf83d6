"""AuthService over real mTLS."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from amarre.auth.v1 import auth_service_pb2 as pb

from mesh.chassis.errors import from_rpc_error
from tests.auth_svc.calls import as_user, called_by, log_in, named, reason_of, sign_up
from tests.auth_svc.harness import Harness


class TestRevocations:
    async def test_token_taken_before_log_out(self, auth: Any, harness: Harness) -> None:
        """A token issued before log-out is rejected at once, although it has not expired."""
        secret = (await log_in(auth, await sign_up(auth, harness))).session_secret
        who = await as_user(auth, secret)
        await auth.LogOut(pb.LogOutRequest(), metadata=who)

        begin = auth.BeginPasskey(pb.BeginPasskeyRequest(), metadata=who)

        assert "UNAUTHENTICATED" == await named(begin)

    async def test_stream(self, auth: Any, harness: Harness) -> None:
        """Callers of the stream get revoked sessions and changed users."""
        secret = (await log_in(auth, await sign_up(auth, harness))).session_secret
        verified = await auth.VerifySession(
            pb.VerifySessionRequest(session_secret=secret, audience="survey")
        )
        stream = auth.WatchRevocations(pb.WatchRevocationsRequest())
        assert pb.WatchRevocationsResponse() == await stream.read()

        await harness.sessions.user_changed(verified.user.id)
        assert [verified.user.id] == (await stream.read()).user_ids
        await auth.LogOut(pb.LogOutRequest(), metadata=await as_user(auth, secret))
        assert [verified.session_id] == (await stream.read()).session_ids
        stream.cancel()


class TestWholeWay:
    async def test_from_sign_up_to_log_out(self, auth: Any, harness: Harness) -> None:
        """A user signs up, opens a session, reads the profile, lists sessions, and signs out."""
        link = await sign_up(auth, harness)
        opened = await log_in(auth, link)
        assert opened.logged_in
        who = await as_user(auth, opened.session_secret)

        profile = await auth.GetProfile(pb.GetProfileRequest(), metadata=who)
        assert (link.user_id, "ada@example.org", ["applicant"]) == (
            profile.user.id,
            profile.user.email,
            list(profile.user.labels),
        )
        (session,) = (await auth.ListSessions(pb.ListSessionsRequest(), metadata=who)).sessions
        assert (True, "Chrome on Windows") == (session.current, session.device)
        assert opened.session_expire_time == session.expire_time

        assert (await auth.LogOut(pb.LogOutRequest(), metadata=who)).logged_out
        verify = auth.VerifySession(
            pb.VerifySessionRequest(session_secret=opened.session_secret, audience="survey")
        )
        assert ("UNAUTHENTICATED", "unauthenticated") == await reason_of(verify)

    async def test_log_out_everywhere(self, auth: Any, harness: Harness) -> None:
        """
        Signing out everywhere ends the sessions of all devices, otherwise only the current one.
        """
        secrets = [
            (await log_in(auth, await sign_up(auth, harness))).session_secret for _ in range(3)
        ]
        first = await as_user(auth, secrets[0])
        second = await as_user(auth, secrets[1])

        await auth.LogOut(pb.LogOutRequest(), metadata=first)
        assert 2 == len(
            (await auth.ListSessions(pb.ListSessionsRequest(), metadata=second)).sessions
        )
        await auth.LogOut(pb.LogOutRequest(everywhere=True), metadata=second)

        for secret in secrets:
            verify = auth.VerifySession(
                pb.VerifySessionRequest(session_secret=secret, audience="auth")
            )
            assert ("UNAUTHENTICATED", "unauthenticated") == await reason_of(verify)

    async def test_end_another_session(self, auth: Any, harness: Harness) -> None:
        """
        A user ends the session of a lost device from the list; a session of another user, or an
        unknown one, is not ended, with the same response.
        """
        mine, lost = [
            (await log_in(auth, await sign_up(auth, harness))).session_secret for _ in range(2)
        ]
        foreign = (
            await log_in(auth, await sign_up(auth, harness, "bob@example.org"))
        ).session_secret
        me, bob = await as_user(auth, mine), await as_user(auth, foreign)
        listed = (await auth.ListSessions(pb.ListSessionsRequest(), metadata=me)).sessions
        (other,) = [session.id for session in listed if not session.current]
        (bobs,) = (await auth.ListSessions(pb.ListSessionsRequest(), metadata=bob)).sessions

        for ended in (other, other, bobs.id, "nobody"):
            request = pb.EndSessionRequest(id=ended)
            assert (await auth.EndSession(request, metadata=me)).ended

        verify = auth.VerifySession(pb.VerifySessionRequest(session_secret=lost, audience="auth"))
        assert ("UNAUTHENTICATED", "unauthenticated") == await reason_of(verify)
        await as_user(auth, mine)
        await as_user(auth, foreign)

    async def test_50_parallel_log_ins(self, auth: Any, harness: Harness) -> None:
        """
        50 concurrent log-ins with one link open one session; the others get the same error, unless
        the machine is too busy to respond in time.
        """
        link = await sign_up(auth, harness)
        request = pb.LogInRequest(user_id=link.user_id, secret=link.secret)

        results = await asyncio.gather(
            *(auth.LogIn(request) for _ in range(50)), return_exceptions=True
        )

        refused = [from_rpc_error(r) for r in results if isinstance(r, grpc.aio.AioRpcError)]
        assert len(refused) >= 49
        assert {error.contract.code for error in refused} <= {
            "invalid_credentials",
            "deadline_exceeded",
        }
        assert 1 == len(await harness.directory.sessions(link.user_id))


class TestSignUp:
    @pytest.mark.parametrize(
        "email",
        [
            "",
            "ada",
            "a..b@example.org",
            ".@example.org",
            "a@example.org.evil.com",
            "a@b@c",
            "a@example.org\n",
            "a\0@example.org",
        ],
    )
    async def test_bad_address(self, auth: Any, harness: Harness, email: str) -> None:
        """An invalid address is invalid_email, whether the contract's rules or Auth detect it."""
        call = auth.SignUp(pb.SignUpRequest(email=email))

        assert ("INVALID_ARGUMENT", "invalid_email") == await reason_of(call)
        assert [] == harness.mailer.sent

    async def test_internationalised_address(self, auth: Any, harness: Harness) -> None:
        """The domain may be in any script; its ASCII form is the same domain."""
        first = await sign_up(auth, harness, "zoe@Universität.example.org")
        second = await sign_up(auth, harness, "zoe@xn--universitt-y5a.example.org")

        assert "zoe@universität.example.org" == harness.mailer.sent[0].to
        assert first.user_id == second.user_id

    async def test_same_answer_for_known_and_unknown(self, auth: Any, harness: Harness) -> None:
        """The responses to a known and an unknown address are identical."""
        await sign_up(auth, harness, "ada@example.org")

        known = await auth.SignUp(pb.SignUpRequest(email="ada@example.org"))
        unknown = await auth.SignUp(pb.SignUpRequest(email="bob@example.org"))

        assert known == unknown

    async def test_limit(self, auth: Any, harness: Harness) -> None:
        """Above the limit, the response is rate_limited with a retry delay."""
        for _ in range(5):
            await sign_up(auth, harness)

        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await auth.SignUp(pb.SignUpRequest(email="ada@example.org"))
        error = from_rpc_error(ei.value)
        assert "rate_limited" == error.contract.code
        assert error.retry_after is not None
        assert 0 < error.retry_after.total_seconds() <= 900

    async def test_redcap_unavailable(self, auth: Any, harness: Harness) -> None:
        """While REDCap is unavailable, sign-up is unavailable."""
        harness.contacts.unavailable = True

        call = auth.SignUp(pb.SignUpRequest(email="ada@example.org"))
        assert ("UNAVAILABLE", "unavailable") == await reason_of(call)


class TestLogIn:
    @pytest.mark.parametrize(
        ("user_id", "secret"),
        [("", "ab"), ("ab", ""), ("xyz", "ab"), ("ab", "not hexadecimal"), ("ab", "a" * 257)],
        ids=["no id", "no secret", "id", "secret", "long secret"],
    )
    async def test_malformed(self, auth: Any, user_id: str, secret: str) -> None:
        """A secret that is not hexadecimal gets another error than an invalid one."""
        call = auth.LogIn(pb.LogInRequest(user_id=user_id, secret=secret))

        assert ("INVALID_ARGUMENT", "magicurl_login_validation_error") == await reason_of(call)

    async def test_words(self, auth: Any) -> None:
        """A malformed value gets the words of the contract, not its regular expression."""
        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await auth.LogIn(pb.LogInRequest(user_id="xyz", secret="ab"))

        assert "user_id: must be the userId of the link: hexadecimal digits" in str(
            ei.value.details()
        )
        assert "[0-9" not in str(ei.value.details())

    async def test_unknown(self, auth: Any) -> None:
        """An unknown link is invalid_credentials."""
        call = auth.LogIn(pb.LogInRequest(user_id="ab", secret="cd"))

        assert ("UNAUTHENTICATED", "invalid_credentials") == await reason_of(call)


class TestVerifySession:
    async def test_unknown_audience(self, auth: Any, harness: Harness) -> None:
        """Tokens are issued only for services of the mesh."""
        secret = (await log_in(auth, await sign_up(auth, harness))).session_secret
        call = auth.VerifySession(
            pb.VerifySessionRequest(session_secret=secret, audience="elsewhere")
        )

        assert ("INVALID_ARGUMENT", "invalid_request") == await reason_of(call)

    async def test_token_for_another_service(self, auth: Any, harness: Harness) -> None:
        """A token for Survey is rejected by Auth."""
        secret = (await log_in(auth, await sign_up(auth, harness))).session_secret
        verified = await auth.VerifySession(
            pb.VerifySessionRequest(session_secret=secret, audience="survey")
        )
        call = auth.GetProfile(
            pb.GetProfileRequest(),
            metadata=(("authorization", f"Bearer {verified.user_token}"),),
        )

        assert ("UNAUTHENTICATED", "unauthenticated") == await reason_of(call)


@pytest.mark.parametrize("caller", ["survey", "health", "operator", "auth"])
@pytest.mark.parametrize(
    "request_of",
    [
        lambda auth: auth.SignUp(pb.SignUpRequest(email="ada@example.org")),
        lambda auth: auth.LogIn(pb.LogInRequest(user_id="ab", secret="cd")),
        lambda auth: auth.VerifySession(
            pb.VerifySessionRequest(session_secret="x", audience="survey")
        ),
        lambda auth: auth.GetProfile(pb.GetProfileRequest()),
        lambda auth: auth.BeginPasskeyLogIn(pb.BeginPasskeyLogInRequest()),
        lambda auth: auth.ListPasskeys(pb.ListPasskeysRequest()),
    ],
    ids=["SignUp", "LogIn", "VerifySession", "GetProfile", "BeginPasskeyLogIn", "ListPasskeys"],
)
async def test_only_the_gateway_may_call(
    harness: Harness, svids: Path, caller: str, request_of: Callable[[Any], Any]
) -> None:
    """Every other workload of the mesh is denied before anything is looked up."""
    async with called_by(caller, harness, svids) as stub:
        assert ("PERMISSION_DENIED", "permission_denied") == await reason_of(request_of(stub))
    assert [] == harness.mailer.sent


async def test_nothing_secret_is_logged(
    auth: Any, harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    """No address, link, session secret, token or client address is logged."""
    link = await sign_up(auth, harness, "canary.ada@example.org")
    await reason_of(auth.SignUp(pb.SignUpRequest(email="canary..bad@example.org")))
    await reason_of(auth.SignUp(pb.SignUpRequest(email="canary@example.com")))
    await reason_of(auth.LogIn(pb.LogInRequest(user_id=link.user_id, secret="c0ffee")))
    opened = await log_in(auth, link)
    who = await as_user(auth, opened.session_secret)
    await auth.LogOut(pb.LogOutRequest(), metadata=who)

    written = "".join(capsys.readouterr())
    assert "session opened" in written
    for hidden in ("canary", "192.0.2.1", "c0ffee", "Chrome", link.secret, opened.session_secret):
        assert hidden not in written
    assert who[0][1] not in written
