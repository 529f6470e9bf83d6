"""Files and server-sent events."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from amarre.mesh.v1.file_chunk_pb2 import FileChunk
from amarre.survey.v1 import survey_pb2, survey_service_pb2

from gateway.rest import downloads, event_stream
from gateway.server.listeners import Listener
from mesh.chassis.errors import NotFoundError, RateLimitedError
from tests.gateway.conftest import World


@contextlib.asynccontextmanager
async def listening(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """Serve on a real port: an in-process client cannot read a stream while it is written."""
    listener = Listener(
        world.gateway.app,
        "127.0.0.1:0",
        tls_dir=None,
        drain_timeout=world.settings.drain_timeout,
    )
    await listener.start()
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{listener.port}",
        headers={"cookie": world.http.headers.get("cookie", "")},
        trust_env=False,
    ) as http:
        yield http
    world.gateway.api.stopping.set()
    await listener.stop()


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until *holds* is true, at most 5 s."""
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.005)


def change(event_id: str) -> object:
    """Return one event."""
    request = survey_pb2.Request(id="7")
    return survey_service_pb2.WatchRequestsResponse(
        event_id=event_id,
        change=survey_pb2.RequestChange(kind=survey_pb2.CHANGE_KIND_CHANGED, request=request),
    )


class TestFiles:
    async def test_pdf(self, world: World) -> None:
        """A PDF is returned as its bytes with its media type and file name."""
        world.sign_in()
        world.survey.chunks = [
            FileChunk(media_type="application/pdf", filename="formulaire_7.pdf", data=b"%PDF-"),
            FileChunk(data=b"1.4"),
        ]
        answer = await world.http.get("/api/v1/surveys/pdf?record_id=7")
        assert b"%PDF-1.4" == answer.content
        assert "application/pdf" == answer.headers["content-type"]
        assert 'attachment; filename="formulaire_7.pdf"' == answer.headers["content-disposition"]

    async def test_json(self, world: World) -> None:
        """JSON chunks become the data of the envelope."""
        world.sign_in()
        world.survey.chunks = [
            FileChunk(media_type="application/json", data=b'[{"a":'),
            FileChunk(data=b'"1"}]'),
        ]
        answer = await world.http.get("/api/v1/surveys/data")
        assert {"data": [{"a": "1"}], "error": None} == answer.json()
        assert "application/json" == answer.headers["content-type"]

    async def test_refused(self, world: World) -> None:
        """A record of another user is 404 in the envelope, not an empty file."""
        world.sign_in()
        world.survey.does.failures["GetPdf"] = NotFoundError("There is no such request.")
        answer = await world.http.get("/api/v1/surveys/pdf?record_id=8")
        assert (404, "not_found") == (answer.status_code, answer.json()["error"]["code"])

    async def test_empty(self, world: World) -> None:
        """A file without any chunk is 502."""
        world.sign_in()
        answer = await world.http.get("/api/v1/surveys/pdf?record_id=8")
        assert (502, "upstream_error") == (answer.status_code, answer.json()["error"]["code"])

    async def test_broken_off(self, world: World) -> None:
        """A partial file never looks complete."""
        world.sign_in()
        world.survey.chunks = [FileChunk(media_type="text/csv", data=b"half")]
        world.survey.breaks_off = True
        async with listening(world) as http:
            with pytest.raises(httpx.RemoteProtocolError):
                await http.get("/api/v1/surveys/data?format=csv")

    @pytest.mark.parametrize(
        ("name", "header"),
        [
            ("a.pdf", 'attachment; filename="a.pdf"'),
            ("../../etc/passwd", 'attachment; filename="passwd"'),
            (
                "a\r\nX: y.pdf",
                "attachment; filename=\"a__X_ y.pdf\"; filename*=UTF-8''aX%3A%20y.pdf",
            ),
            ('q".pdf', "attachment; filename=\"q_.pdf\"; filename*=UTF-8''q%22.pdf"),
            ("é.pdf", "attachment; filename=\"_.pdf\"; filename*=UTF-8''%C3%A9.pdf"),
            ("..", 'attachment; filename="file"'),
        ],
    )
    def test_disposition(self, name: str, header: str) -> None:
        """A file name cannot escape its header or its folder."""
        assert header == downloads.disposition(name)


class TestEvents:
    async def test_events(self, world: World) -> None:
        """Each message is an event with its id; heartbeats are comments; the end is an event."""
        world.sign_in()
        for event in (change("a"), change(""), change("b"), None):
            world.survey.events.put_nowait(event)
        answer = await world.http.get("/api/v1/surveys/events", headers={"Last-Event-ID": "z"})
        assert "text/event-stream; charset=utf-8" == answer.headers["content-type"]
        parts = answer.text.split("\n\n")
        assert "retry: 3000" == parts[0]
        assert "id: a" == parts[1].split("\n")[0]
        assert "7" == json.loads(parts[1].split("data: ")[1])["change"]["request"]["id"]
        assert ": heartbeat" == parts[2]
        assert parts[3].startswith("id: b\n")
        assert "event: end\ndata: {}" == parts[4]
        assert "z" == world.survey.does.last("WatchRequests").last_event_id

    async def test_refused(self, world: World) -> None:
        """An early error is an ordinary error response, not a stream."""
        world.sign_in()
        world.survey.does.failures["WatchRequests"] = RateLimitedError("Too many watch.")
        answer = await world.http.get("/api/v1/surveys/events")
        assert (429, "rate_limited") == (answer.status_code, answer.json()["error"]["code"])

    async def test_failure_midway(self, world: World) -> None:
        """A failure after the first event is sent as an error event."""
        world.sign_in()
        world.survey.events.put_nowait(change("a"))
        world.survey.events.put_nowait(object())  # What no service may yield.
        answer = await world.http.get("/api/v1/surveys/events")
        assert "event: error\n" in answer.text
        assert "internal" == json.loads(answer.text.rsplit("data: ", 1)[1])["code"]

    async def test_client_goes(self, world: World) -> None:
        """The rpc is cancelled when the client disconnects."""
        world.sign_in()
        world.survey.events.put_nowait(change("a"))
        async with listening(world) as http:
            async with http.stream("GET", "/api/v1/surveys/events") as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("id: a"):
                        break
                assert 1 == world.survey.watchers
            await eventually(lambda: world.survey.watchers == 0)

    async def test_session_ends(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A stream does not outlive its session."""
        monkeypatch.setattr(event_stream, "RECHECK_SECONDS", 0.05)
        world.sign_in()
        world.survey.events.put_nowait(change("a"))
        async with listening(world) as http:
            async with http.stream("GET", "/api/v1/surveys/events") as answer:
                lines = answer.aiter_lines()
                assert "retry: 3000" == await anext(lines)
                proof = {"sec-fetch-site": "same-origin"}
                await http.post("/api/v1/auth/logout", headers=proof)
                rest = [line async for line in lines]
            assert "event: end" in rest
            await eventually(lambda: world.survey.watchers == 0)

    async def test_shutdown(self, world: World) -> None:
        """Streams end at shutdown."""
        world.sign_in()
        world.survey.events.put_nowait(change("a"))
        async with listening(world) as http, http.stream("GET", "/api/v1/surveys/events") as answer:
            lines = answer.aiter_lines()
            assert "retry: 3000" == await anext(lines)
            world.gateway.api.stopping.set()
            assert "event: end" in [line async for line in lines]

    async def test_heartbeat(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """An idle stream sends heartbeats."""
        monkeypatch.setattr(event_stream, "RECHECK_SECONDS", 0.02)
        monkeypatch.setattr(event_stream, "HEARTBEAT_SECONDS", 0.05)
        world.sign_in()
        world.survey.events.put_nowait(change("a"))
        async with listening(world) as http, http.stream("GET", "/api/v1/surveys/events") as answer:
            async with asyncio.timeout(5):
                async for line in answer.aiter_lines():
                    if line == ": heartbeat":
                        break

    async def test_head(self, world: World) -> None:
        """HEAD does not open a stream."""
        world.sign_in()
        answer = await world.http.head("/api/v1/surveys/events")
        assert 200 == answer.status_code
        assert 0 == world.survey.does.count("WatchRequests")


def test_event_id_stays_on_its_line() -> None:
    """An event id with line breaks cannot inject further fields."""
    text = event_stream.event(survey_service_pb2.WatchRequestsResponse(event_id="a\nevent: end\r"))
    assert "id: aevent: end" == text.split("\n")[0]
