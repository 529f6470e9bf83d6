"""Fake services with configurable responses, behind real mTLS."""

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from amarre.auth.v1 import auth_pb2, auth_service_pb2, auth_service_pb2_grpc
from amarre.health.v1 import health_pb2, health_service_pb2, health_service_pb2_grpc
from amarre.survey.v1 import survey_pb2, survey_service_pb2, survey_service_pb2_grpc

from mesh.chassis import call
from mesh.chassis.errors import InvalidRequestError, MeshError, UnauthenticatedError
from mesh.chassis.identity import SpiffeId
from mesh.chassis.tokens import SigningKey, mint

CHALLENGE = {"challenge": "AAAAAAAAAAAAAAAAAAAAAA", "rpId": "localhost"}
CREATION = {
    "challenge": "AAAAAAAAAAAAAAAAAAAAAA",
    "rp": {"id": "localhost", "name": "AMARRE"},
    "pubKeyCredParams": [{"type": "public-key", "alg": alg} for alg in (-7, -257)],
    "authenticatorSelection": {"residentKey": "required"},
}
GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")


class Behaviour:
    """Behaviour of a fake: records requests by rpc and raises configured failures."""

    def __init__(self) -> None:
        self.requests: dict[str, list[Any]] = {}
        self.failures: dict[str, MeshError] = {}
        self.answers: dict[str, Any] = {}
        self.delay_seconds = 0.0
        """How long sessions take to verify."""

    def take(self, rpc: str, request: Any) -> None:
        """Record *request*, and raise the failure configured for *rpc*."""
        self.requests.setdefault(rpc, []).append(request)
        if rpc in self.failures:
            raise self.failures[rpc]

    def last(self, rpc: str) -> Any:
        """Return the latest request of *rpc*."""
        return self.requests[rpc][-1]

    def count(self, rpc: str) -> int:
        """Return how often *rpc* was called."""
        return len(self.requests.get(rpc, ()))


def credential_id(request: Any) -> str:
    """Return the id of the passkey in a credential."""
    try:
        return str(json.loads(request.credential_json)["id"])
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise InvalidRequestError("The answer of the browser cannot be read.") from exc


class FakeAuth(auth_service_pb2_grpc.AuthServiceServicer):
    """Auth service with sessions opened by the test; mints real tokens."""

    def __init__(self, key: SigningKey) -> None:
        self.does = Behaviour()
        self.sessions: dict[str, call.User] = {}
        self.passkeys: list[auth_pb2.Passkey] = []
        self.revocations: asyncio.Queue[Any] = asyncio.Queue()
        """Responses of WatchRevocations; None ends the stream."""
        self._key = key
        self.next_secret = "f" * 43
        self.open_sessions = 2
        """Number of sessions that are listed."""
        self.creating_for = "ada"
        """Id of the user for whom passkeys are created."""

    def open(
        self,
        email: str = "ada@example.org",
        user_id: str = "ada",
        *,
        labels: tuple[str, ...] = ("applicant",),
        ago: float = 0,
        partial: bool = False,
    ) -> str:
        """Open a session, *ago* seconds in the past, and return its secret."""
        secret = f"{user_id}-{len(self.sessions)}".ljust(43, "0")
        session, at = f"s{len(self.sessions)}", int(time.time() - ago)
        self.sessions[secret] = call.User(user_id, session, email, labels, at, partial)
        return secret

    def _open_next(self) -> None:
        now = int(time.time())
        self.sessions[self.next_secret] = call.User("ada", "s", "ada@example.org", (), now)

    async def SignUp(self, request: Any, context: Any) -> Any:
        self.does.take("SignUp", request)
        response = auth_service_pb2.SignUpResponse(signed_up=True)
        response.create_time.GetCurrentTime()
        return response

    async def LogIn(self, request: Any, context: Any) -> Any:
        self.does.take("LogIn", request)
        self.sessions[self.next_secret] = call.User(
            "ada", "s", "ada@example.org", (), int(time.time())
        )
        response = auth_service_pb2.LogInResponse(logged_in=True, session_secret=self.next_secret)
        response.session_expire_time.GetCurrentTime()
        response.session_expire_time.seconds += 3600
        return response

    async def LogOut(self, request: Any, context: Any) -> Any:
        self.does.take("LogOut", request)
        user = call.user()
        self.sessions = {
            secret: known
            for secret, known in self.sessions.items()
            if known.session_id != user.session_id
            and not (request.everywhere and known.id == user.id)
        }
        return auth_service_pb2.LogOutResponse(logged_out=True)

    async def EndSession(self, request: Any, context: Any) -> Any:
        self.does.take("EndSession", request)
        mine = call.user().id
        self.sessions = {
            secret: known
            for secret, known in self.sessions.items()
            if (known.id, known.session_id) != (mine, request.id)
        }
        return auth_service_pb2.EndSessionResponse(ended=True)

    async def VerifySession(self, request: Any, context: Any) -> Any:
        self.does.take("VerifySession", request)
        await asyncio.sleep(self.does.delay_seconds)
        user = self.sessions.get(request.session_secret)
        if user is None:
            raise UnauthenticatedError("The session is unknown or has ended.")
        token, ends_at = mint(self._key, user, audience=request.audience, caller=GATEWAY)
        response = auth_service_pb2.VerifySessionResponse(
            user=auth_pb2.User(id=user.id, email=user.email, labels=user.labels),
            user_token=token,
            session_id=user.session_id,
        )
        response.token_expire_time.FromDatetime(ends_at)
        response.session_expire_time.FromDatetime(ends_at + timedelta(hours=1))
        return response

    async def WatchRevocations(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.does.take("WatchRevocations", request)
        yield auth_service_pb2.WatchRevocationsResponse()
        while (response := await self.revocations.get()) is not None:
            yield response

    async def GetProfile(self, request: Any, context: Any) -> Any:
        self.does.take("GetProfile", request)
        user = call.user()
        return auth_service_pb2.GetProfileResponse(
            user=auth_pb2.User(id=user.id, email=user.email, labels=user.labels)
        )

    async def ListSessions(self, request: Any, context: Any) -> Any:
        self.does.take("ListSessions", request)
        token = request.page_token
        first = int(token) if token.isdecimal() and len(token) < 10 else 0
        last = min(first + min(request.page_size or 50, 200), self.open_sessions)
        token = str(last) if last < self.open_sessions else ""
        response = auth_service_pb2.ListSessionsResponse(next_page_token=token)
        for number in range(first, last):
            session = response.sessions.add(
                id=f"00000000-0000-4000-8000-{number:012}",
                current=number == 0,
                device="Firefox on Linux",
            )
            session.create_time.GetCurrentTime()
            session.expire_time.FromJsonString("2027-01-01T00:00:00Z")
        return response

    async def BeginPasskey(self, request: Any, context: Any) -> Any:
        self.does.take("BeginPasskey", request)
        user = {"id": b64encode(self.creating_for.encode()).decode(), "name": "x@example.org"}
        options = CREATION | {"user": user | {"displayName": user["name"]}}
        return auth_service_pb2.BeginPasskeyResponse(
            ceremony_id="0" * 32, options_json=json.dumps(options)
        )

    async def AddPasskey(self, request: Any, context: Any) -> Any:
        self.does.take("AddPasskey", request)
        passkey = auth_pb2.Passkey(id=credential_id(request), name=request.name)
        passkey.create_time.GetCurrentTime()
        self.passkeys.append(passkey)
        return auth_service_pb2.AddPasskeyResponse(passkey=passkey)

    async def ListPasskeys(self, request: Any, context: Any) -> Any:
        self.does.take("ListPasskeys", request)
        return auth_service_pb2.ListPasskeysResponse(passkeys=self.passkeys)

    async def RemovePasskey(self, request: Any, context: Any) -> Any:
        self.does.take("RemovePasskey", request)
        self.passkeys = [passkey for passkey in self.passkeys if passkey.id != request.id]
        return auth_service_pb2.RemovePasskeyResponse(removed=True)

    async def SetSecondFactor(self, request: Any, context: Any) -> Any:
        self.does.take("SetSecondFactor", request)
        return auth_service_pb2.SetSecondFactorResponse(required=request.required)

    async def EnterConsole(self, request: Any, context: Any) -> Any:
        self.does.take("EnterConsole", request)
        return auth_service_pb2.EnterConsoleResponse(url="http://console.test/open?code=once")

    async def BeginPasskeyLogIn(self, request: Any, context: Any) -> Any:
        self.does.take("BeginPasskeyLogIn", request)
        return auth_service_pb2.BeginPasskeyLogInResponse(
            ceremony_id="1" * 32, options_json=json.dumps(CHALLENGE)
        )

    async def LogInWithPasskey(self, request: Any, context: Any) -> Any:
        self.does.take("LogInWithPasskey", request)
        if credential_id(request) not in {p.id for p in self.passkeys}:
            raise UnauthenticatedError("The passkey is unknown.")
        self.sessions[self.next_secret] = call.User(
            "ada", "s", "ada@example.org", (), int(time.time())
        )
        response = auth_service_pb2.LogInWithPasskeyResponse(
            logged_in=True, session_secret=self.next_secret
        )
        response.session_expire_time.GetCurrentTime()
        response.session_expire_time.seconds += 3600
        return response


class FakeSurvey(survey_service_pb2_grpc.SurveyServiceServicer):
    """Survey service with requests and files set by the test."""

    def __init__(self) -> None:
        self.does = Behaviour()
        self.listed: list[survey_pb2.Request] = []
        self.next_page_token = ""
        self.pages: dict[str, tuple[list[str], str]] = {}
        """Ids of requests and the next token, by page token."""
        self.chunks: list[Any] = []
        self.breaks_off = False
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.watchers = 0

    async def CreateRequest(self, request: Any, context: Any) -> Any:
        self.does.take("CreateRequest", request)
        return survey_service_pb2.CreateRequestResponse(new_request_created=1, id="42")

    async def ListRequests(self, request: Any, context: Any) -> Any:
        self.does.take("ListRequests", request)
        if request.page_token in self.pages:
            ids, token = self.pages[request.page_token]
            status = survey_pb2.REQUEST_STATUS_TO_COMPLETE
            requests = [survey_pb2.Request(id=one, status=status) for one in ids]
            return survey_service_pb2.ListRequestsResponse(requests=requests, next_page_token=token)
        return survey_service_pb2.ListRequestsResponse(
            requests=self.listed, next_page_token=self.next_page_token
        )

    async def GetLink(self, request: Any, context: Any) -> Any:
        self.does.take("GetLink", request)
        return survey_service_pb2.GetLinkResponse(url="https://redcap.example.org/surveys/?s=A")

    async def ExportData(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.does.take("ExportData", request)
        async for chunk in self._pieces():
            yield survey_service_pb2.ExportDataResponse(chunk=chunk)

    async def GetPdf(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.does.take("GetPdf", request)
        async for chunk in self._pieces():
            yield survey_service_pb2.GetPdfResponse(chunk=chunk)

    async def _pieces(self) -> AsyncIterator[Any]:
        for chunk in self.chunks:
            yield chunk
        if self.breaks_off:
            raise MeshError("Something broke.")

    async def FindContact(self, request: Any, context: Any) -> Any:
        self.does.take("FindContact", request)
        return survey_service_pb2.FindContactResponse()

    async def WatchRequests(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.does.take("WatchRequests", request)
        self.watchers += 1
        try:
            while (event := await self.events.get()) is not None:
                yield event
        finally:
            self.watchers -= 1


class FakeHealth(health_service_pb2_grpc.HealthServiceServicer):
    """Health service with a status set by the test."""

    def __init__(self) -> None:
        self.does = Behaviour()
        self.status = health_pb2.HEALTH_STATUS_HEALTHY
        self.events: asyncio.Queue[str] | None = None
        """Ids of further events, for a watch that stays open."""
        self.watchers = 0

    async def CheckHost(self, request: Any, context: Any) -> Any:
        self.does.take("CheckHost", request)
        return health_service_pb2.CheckHostResponse(
            probe=health_pb2.HostProbe(online=True, host=request.host, port=443, timeout_ms=3000)
        )

    async def GetStatus(self, request: Any, context: Any) -> Any:
        self.does.take("GetStatus", request)
        return health_service_pb2.GetStatusResponse(
            status=health_pb2.MeshStatus(status=self.status, uptime_seconds=0)
        )

    async def WatchStatus(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.does.take("WatchStatus", request)
        self.watchers += 1
        try:
            status = health_pb2.MeshStatus(status=self.status)
            yield health_service_pb2.WatchStatusResponse(event_id="1", status=status)
            while self.events is not None:
                event_id = await self.events.get()
                yield health_service_pb2.WatchStatusResponse(event_id=event_id, status=status)
        finally:
            self.watchers -= 1
