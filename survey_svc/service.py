"""SurveyService: protobuf in, domain call, protobuf out.

The pipeline has already identified the caller, verified the user and validated the request.
Every method that names a record checks its ownership first.
"""

import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from amarre.mesh.v1 import file_chunk_pb2
from amarre.survey.v1 import survey_pb2 as pb
from amarre.survey.v1 import survey_service_pb2 as messages
from amarre.survey.v1 import survey_service_pb2_grpc as rpc
from google.protobuf import timestamp_pb2

from mesh.chassis import call
from mesh.chassis.interceptors.context import Context
from survey_svc.export.files import data_file
from survey_svc.ports import Project
from survey_svc.requests.creation import Applicant, Creation
from survey_svc.requests.listing import MAX_USERS, Listing
from survey_svc.requests.paging import page
from survey_svc.requests.rules import Request, Status, Step, StepKind, StepState
from survey_svc.requests.watching import Event, Kind, Watching
from survey_svc.study.profile import OpinionKind
from survey_svc.study.study import Study

PIECE_BYTES = 64 * 1024
MAX_FIRST_PAGES = 4
"""Number of page sizes of one list whose responses are cached."""


class SurveyService(rpc.SurveyServiceServicer):
    """Serve ``amarre.survey.v1.SurveyService``."""

    def __init__(
        self,
        *,
        study: Study,
        project: Project,
        listing: Listing,
        creation: Creation,
        watching: Watching,
    ) -> None:
        self._study = study
        self._project = project
        self._listing = listing
        self._creation = creation
        self._watching = watching
        self._responses = _Responses()

    async def CreateRequest(
        self, request: messages.CreateRequestRequest, context: Context
    ) -> messages.CreateRequestResponse:
        user = call.user()
        record = await self._creation.create(
            Applicant(user.id, user.email),
            consent=request.consent,
            notice=request.notice_version,
            key=request.idempotency_key,
        )
        return messages.CreateRequestResponse(new_request_created=1, id=record)

    async def ListRequests(
        self, request: messages.ListRequestsRequest, context: Context
    ) -> messages.ListRequestsResponse:
        requests = await self._listing.requests(call.user().id)
        return self._responses.page(
            call.user().id, requests, size=request.page_size, token=request.page_token
        )

    async def GetLink(
        self, request: messages.GetLinkRequest, context: Context
    ) -> messages.GetLinkResponse:
        url = await self._listing.link(call.user().id, request.record, request.instrument)
        return messages.GetLinkResponse(url=url)

    async def ExportData(
        self, request: messages.ExportDataRequest, context: Context
    ) -> AsyncIterator[messages.ExportDataResponse]:
        media_type, filename, pieces = data_file(
            self._study,
            self._project,
            call.user().id,
            form=request.format,
            since=request.since,
            only_codebook=request.codebook,
        )
        head = file_chunk_pb2.FileChunk(media_type=media_type, filename=filename)
        async for chunk in _chunks(head, pieces):
            yield messages.ExportDataResponse(chunk=chunk)

    async def GetPdf(
        self, request: messages.GetPdfRequest, context: Context
    ) -> AsyncIterator[messages.GetPdfResponse]:
        await self._listing.require_own(call.user().id, request.record_id)
        profile = self._study.profile
        name = f"{profile.pdf_name}_{safe_name(request.record_id)}.pdf"
        head = file_chunk_pb2.FileChunk(media_type="application/pdf", filename=name)
        pieces = self._project.pdf(request.record_id, profile.pdf)
        async for chunk in _chunks(head, pieces):
            yield messages.GetPdfResponse(chunk=chunk)

    async def WatchRequests(
        self, request: messages.WatchRequestsRequest, context: Context
    ) -> AsyncIterator[messages.WatchRequestsResponse]:
        events = self._watching.watch(call.user().id, request.last_event_id)
        async with aclosing(events):
            async for event in events:
                yield _to_change(event)

    async def FindContact(
        self, request: messages.FindContactRequest, context: Context
    ) -> messages.FindContactResponse:
        return messages.FindContactResponse(user_id=await self._project.find_user(request.email))


class _Responses:
    """Responses built from the latest lists, most of which are requested again unchanged."""

    def __init__(self) -> None:
        self._lists: OrderedDict[str, _BuiltList] = OrderedDict()

    def page(
        self, user: str, requests: Sequence[Request], *, size: int, token: str
    ) -> messages.ListRequestsResponse:
        """Return one page of *requests*; cached while the list is the same object."""
        built = self._lists.get(user)
        if built is None or built.requests is not requests:
            built = _BuiltList(requests)
            self._lists[user] = built
        self._lists.move_to_end(user)
        if len(self._lists) > MAX_USERS:
            self._lists.popitem(last=False)
        return built.page(size, token)


class _BuiltList:
    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = requests
        self._messages = [_to_proto(request) for request in requests]
        self._first: dict[int, messages.ListRequestsResponse] = {}

    def page(self, size: int, token: str) -> messages.ListRequestsResponse:
        known = None if token else self._first.get(size)
        if known is not None:
            return known
        shown, next_token = page(self.requests, size, token)
        response = messages.ListRequestsResponse(
            requests=self._messages[shown], next_page_token=next_token
        )
        if not token and len(self._first) < MAX_FIRST_PAGES:
            self._first[size] = response
        return response


def safe_name(record: str) -> str:
    """Return *record* as a safe part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", record)[:100]


async def _chunks(
    head: file_chunk_pb2.FileChunk, pieces: AsyncGenerator[bytes]
) -> AsyncIterator[file_chunk_pb2.FileChunk]:
    """Yield *pieces* as chunks; the first one has the media type and the name."""
    async with aclosing(pieces):
        async for piece in pieces:
            for at in range(0, len(piece), PIECE_BYTES) or [0]:
                head.data = piece[at : at + PIECE_BYTES]
                yield head
                head = file_chunk_pb2.FileChunk()


_STATUS = {
    Status.TO_COMPLETE: pb.REQUEST_STATUS_TO_COMPLETE,
    Status.TO_FOLLOW: pb.REQUEST_STATUS_TO_FOLLOW,
    Status.DONE: pb.REQUEST_STATUS_DONE,
}
_KIND = {
    StepKind.FORM: pb.STEP_KIND_FORM,
    StepKind.OPINION: pb.STEP_KIND_OPINION,
    StepKind.FINAL: pb.STEP_KIND_FINAL,
}
_STATE = {
    StepState.NOT_AVAILABLE: pb.STEP_STATE_NOT_AVAILABLE,
    StepState.WAITING: pb.STEP_STATE_WAITING,
    StepState.TO_DO: pb.STEP_STATE_TO_DO,
    StepState.UNDER_REVIEW: pb.STEP_STATE_UNDER_REVIEW,
    StepState.DONE: pb.STEP_STATE_DONE,
}
_OPINION = {
    None: pb.OPINION_UNSPECIFIED,
    OpinionKind.FAVOURABLE: pb.OPINION_FAVOURABLE,
    OpinionKind.WITH_RESERVATIONS: pb.OPINION_WITH_RESERVATIONS,
    OpinionKind.UNFAVOURABLE: pb.OPINION_UNFAVOURABLE,
}
_CHANGE = {
    Kind.HEARTBEAT: pb.CHANGE_KIND_UNSPECIFIED,
    Kind.RESET: pb.CHANGE_KIND_RESET,
    Kind.CURRENT: pb.CHANGE_KIND_CURRENT,
    Kind.CHANGED: pb.CHANGE_KIND_CHANGED,
    Kind.REMOVED: pb.CHANGE_KIND_REMOVED,
}


def _to_proto(request: Request) -> pb.Request:
    created = None
    if request.created_at is not None:
        created = timestamp_pb2.Timestamp()
        created.FromDatetime(request.created_at)
    return pb.Request(
        id=request.id,
        create_time=created,
        title=request.title,
        status=_STATUS[request.status],
        steps=[_to_step(step) for step in request.steps],
        fields=dict(request.fields),
    )


def _to_step(step: Step) -> pb.Step:
    return pb.Step(
        instrument=step.instrument,
        kind=_KIND[step.kind],
        state=_STATE[step.state],
        opinion=_OPINION[step.opinion],
        url=step.url,
    )


def _to_change(event: Event) -> messages.WatchRequestsResponse:
    change = pb.RequestChange(kind=_CHANGE[event.kind])
    if event.request is not None:
        change.request.CopyFrom(_to_proto(event.request))
    elif event.removed:
        change.request.id = event.removed
    return messages.WatchRequestsResponse(event_id=event.id, change=change)
