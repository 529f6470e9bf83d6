"""AuthService: protobuf in, domain call, protobuf out.

The pipeline of `mesh.chassis` has already identified the caller, applied the method's policy and
validated the request. The rules are in `auth_svc.sign_in.magic_links`,
`auth_svc.sign_in.passkeys` and `auth_svc.sessions.lifecycle`.
"""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from amarre.auth.v1 import auth_pb2
from amarre.auth.v1 import auth_service_pb2 as pb
from amarre.auth.v1 import auth_service_pb2_grpc as rpc
from google.protobuf.timestamp_pb2 import Timestamp

from auth_svc.ports import SECOND_FACTOR, Console, Session, with_label
from auth_svc.sessions.lifecycle import Sessions
from auth_svc.sessions.revocations import Revocations
from auth_svc.sign_in.magic_links import SignIn
from auth_svc.sign_in.passkeys import Passkey, Passkeys
from mesh.chassis import call
from mesh.chassis.errors import ConflictError, InvalidRequestError, Violation
from mesh.chassis.interceptors.context import Context
from mesh.contract.policy import SERVICES


class AuthService(rpc.AuthServiceServicer):
    """Serve ``amarre.auth.v1.AuthService``."""

    def __init__(
        self,
        sign_in: SignIn,
        sessions: Sessions,
        passkeys: Passkeys,
        *,
        revocations: Revocations,
        console: Console,
    ) -> None:
        self._sign_in = sign_in
        self._sessions = sessions
        self._passkeys = passkeys
        self._revocations = revocations
        self._console = console

    async def SignUp(self, request: pb.SignUpRequest, context: Context) -> pb.SignUpResponse:
        at = await self._sign_in.sign_up(
            request.email, client=request.client_address, language=request.language
        )
        return pb.SignUpResponse(signed_up=True, create_time=_time(at))

    async def LogIn(self, request: pb.LogInRequest, context: Context) -> pb.LogInResponse:
        opened = await self._sign_in.log_in(
            request.user_id,
            request.secret,
            client=request.client_address,
            user_agent=request.user_agent,
        )
        return pb.LogInResponse(
            logged_in=True,
            session_secret=opened.secret,
            session_expire_time=_time(opened.session.expires_at),
        )

    async def LogOut(self, request: pb.LogOutRequest, context: Context) -> pb.LogOutResponse:
        user = call.user()
        if request.everywhere:
            await self._sessions.end_all(user.id)
        else:
            await self._sessions.end(user.id, user.session_id)
        return pb.LogOutResponse(logged_out=True)

    async def VerifySession(
        self, request: pb.VerifySessionRequest, context: Context
    ) -> pb.VerifySessionResponse:
        current = call.current()
        if current is None:
            raise LookupError("VerifySession binds tokens to the caller of a served call.")
        if request.audience not in SERVICES:
            known = ", ".join(SERVICES)
            raise InvalidRequestError(
                f"There is no such service; tokens are for one of {known}.",
                violations=[Violation("audience", f"one of {known}")],
            )
        issued = await self._sessions.issue_token(
            request.session_secret, audience=request.audience, caller=current.caller
        )
        return pb.VerifySessionResponse(
            user=_user(issued.user.id, issued.user.email, issued.user.labels),
            user_token=issued.token,
            token_expire_time=_time(issued.token_expires_at),
            session_expire_time=_time(issued.session.expires_at),
            session_id=issued.session.id,
        )

    async def WatchRevocations(
        self, request: pb.WatchRevocationsRequest, context: Context
    ) -> AsyncIterator[pb.WatchRevocationsResponse]:
        async for found in self._revocations.watch():
            yield pb.WatchRevocationsResponse(
                session_ids=[one.session_id for one in found if one.session_id],
                user_ids=[one.user_id for one in found if one.user_id],
            )

    async def GetProfile(
        self, request: pb.GetProfileRequest, context: Context
    ) -> pb.GetProfileResponse:
        # The token was issued from the directory's response a few seconds ago at most.
        user = call.user()
        return pb.GetProfileResponse(user=_user(user.id, user.email, user.labels))

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        user = call.user()
        page, next_page_token = await self._sessions.page(
            user.id, size=request.page_size, token=request.page_token
        )
        return pb.ListSessionsResponse(
            sessions=[_session(session, user.session_id) for session in page],
            next_page_token=next_page_token,
        )

    async def EndSession(
        self, request: pb.EndSessionRequest, context: Context
    ) -> pb.EndSessionResponse:
        await self._sessions.end(call.user().id, request.id)
        return pb.EndSessionResponse(ended=True)

    async def BeginPasskey(
        self, request: pb.BeginPasskeyRequest, context: Context
    ) -> pb.BeginPasskeyResponse:
        user = call.user()
        begun = await self._passkeys.begin(user.id, user.email, partial=user.partial)
        return pb.BeginPasskeyResponse(
            ceremony_id=begun.ceremony_id, options_json=begun.options_json
        )

    async def AddPasskey(
        self, request: pb.AddPasskeyRequest, context: Context
    ) -> pb.AddPasskeyResponse:
        user = call.user()
        passkey = await self._passkeys.add(
            user.id,
            request.ceremony_id,
            request.credential_json,
            name=request.name,
            partial=user.partial,
        )
        return pb.AddPasskeyResponse(passkey=_passkey(passkey))

    async def ListPasskeys(
        self, request: pb.ListPasskeysRequest, context: Context
    ) -> pb.ListPasskeysResponse:
        found = await self._passkeys.of_user(call.user().id)
        return pb.ListPasskeysResponse(passkeys=[_passkey(passkey) for passkey in found])

    async def RemovePasskey(
        self, request: pb.RemovePasskeyRequest, context: Context
    ) -> pb.RemovePasskeyResponse:
        user = call.user()
        await self._passkeys.remove(user.id, request.id, keep_one=SECOND_FACTOR in user.labels)
        return pb.RemovePasskeyResponse(removed=True)

    async def SetSecondFactor(
        self, request: pb.SetSecondFactorRequest, context: Context
    ) -> pb.SetSecondFactorResponse:
        user = call.user()
        others = with_label(user.labels, SECOND_FACTOR, on=False)
        if not request.required and self._sessions.second_factor.is_required_for(others):
            raise ConflictError("This mesh requires a passkey; this cannot be turned off.")
        await self._passkeys.ask_for(user.id, required=request.required)
        await self._sessions.user_changed(user.id)
        return pb.SetSecondFactorResponse(required=request.required)

    async def EnterConsole(
        self, request: pb.EnterConsoleRequest, context: Context
    ) -> pb.EnterConsoleResponse:
        return pb.EnterConsoleResponse(url=await self._console.link_for(call.user().id))

    async def BeginPasskeyLogIn(
        self, request: pb.BeginPasskeyLogInRequest, context: Context
    ) -> pb.BeginPasskeyLogInResponse:
        begun = await self._passkeys.begin_log_in(request.client_address)
        return pb.BeginPasskeyLogInResponse(
            ceremony_id=begun.ceremony_id, options_json=begun.options_json
        )

    async def LogInWithPasskey(
        self, request: pb.LogInWithPasskeyRequest, context: Context
    ) -> pb.LogInWithPasskeyResponse:
        opened = await self._passkeys.log_in(
            request.ceremony_id,
            request.credential_json,
            client=request.client_address,
            user_agent=request.user_agent,
        )
        return pb.LogInWithPasskeyResponse(
            logged_in=True,
            session_secret=opened.secret,
            session_expire_time=_time(opened.session.expires_at),
        )


def _user(user_id: str, email: str, labels: tuple[str, ...]) -> auth_pb2.User:
    return auth_pb2.User(id=user_id, email=email, labels=labels)


def _session(session: Session, current_id: str) -> auth_pb2.Session:
    return auth_pb2.Session(
        id=session.id,
        create_time=_time(session.created_at),
        expire_time=_time(session.expires_at),
        current=session.id == current_id,
        device=session.device,
    )


def _passkey(passkey: Passkey) -> auth_pb2.Passkey:
    return auth_pb2.Passkey(
        id=passkey.id,
        name=passkey.name,
        create_time=_time(passkey.created_at),
        use_time=None if passkey.used_at is None else _time(passkey.used_at),
    )


def _time(moment: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(moment)
    return found


def register(service: AuthService) -> Any:
    """Return the function that adds *service* to a server."""
    return lambda server: rpc.add_AuthServiceServicer_to_server(service, server)
