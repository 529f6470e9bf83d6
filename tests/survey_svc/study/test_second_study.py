"""Another study runs with only a profile file."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from amarre.survey.v1 import survey_pb2 as pb
from amarre.survey.v1 import survey_service_pb2 as messages

from survey_svc.study import profile as profiles
from tests.survey_svc.sandbox import Sandbox
from tests.survey_svc.world import World, reason_of, running

STUDIES = Path(__file__).parent / "studies"


@pytest.fixture(scope="module")
def health(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A sandbox whose project is the health questionnaire."""
    with Sandbox(tmp_path_factory.mktemp("health"), study=STUDIES / "health.csv") as sandbox:
        yield sandbox


@pytest.fixture
async def world(health: Sandbox, svids: Path, tmp_path: Path) -> AsyncIterator[World]:
    """The service with the profile of the health questionnaire."""
    profile = profiles.load(STUDIES / "health.yaml")
    async with running(health, profile, svids, f"sqlite+aiosqlite:///{tmp_path}/s.db") as world:
        yield world


class TestHealthQuestionnaire:
    async def test_whole_way(self, world: World, health: Sandbox, user: str) -> None:
        """Creating, filling in, reading and downloading work without code changes."""
        created = await world.create(user, notice_version="2026-05")
        [stored] = health.api(content="record", filterLogic=f"[account] = '{user}'")
        [begun] = (await world.list(user)).requests
        answers = {"mood": "p", "smokes": "0", "complaints___s": "1", "checkup_complete": "2"}
        rows = [{"participant": created.id, **answers}]
        health.api(content="record", action="import", data=json.dumps(rows))
        done = await _fresh(world, user)
        _, _, data = await world.file("ExportData", user, messages.ExportDataRequest())
        _, name, pdf = await world.file(
            "GetPdf", user, messages.GetPdfRequest(record_id=created.id)
        )

        assert ("ada@example.org", "2026-05", "1") == (
            stored["mail"],
            stored["notice_seen"],
            stored["enrolment_complete"],
        )
        assert stored["consented_on"].endswith("Z")
        assert pb.REQUEST_STATUS_TO_COMPLETE == begun.status
        assert begun.steps[0].url.startswith(health.url)
        assert pb.REQUEST_STATUS_DONE == done.status
        assert ("Poor, and worried", "No") == (done.title, done.fields["smokes"])
        assert {"mood": "Poor, and worried"}.items() <= json.loads(data)[0].items()
        assert f"checkup_{created.id}.pdf" == name
        assert pdf.startswith(b"%PDF-")

    async def test_other_instruments(self, world: World, user: str) -> None:
        """The instruments of the other study are unknown here."""
        created = await world.create(user)

        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.link(user, created.id, "form")

        assert "INVALID_REQUEST" == reason_of(ei.value)


async def _fresh(world: World, user: str) -> pb.Request:
    """Return the only request of *user* once the list is not the cached one."""
    stream = world.stub.WatchRequests(messages.WatchRequestsRequest(), metadata=world.as_user(user))
    async for event in stream:
        if event.change.request.status == pb.REQUEST_STATUS_DONE:
            stream.cancel()
            [request] = (await world.list(user)).requests
            return request
    raise AssertionError("the stream ended before the request was done")
