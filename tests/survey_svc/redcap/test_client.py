"""The REDCap client with invalid responses, and its retries."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from pydantic import SecretStr

from mesh.chassis.errors import MeshError, UnavailableError, UpstreamError
from survey_svc.errors import InvalidUrlError, RefusedError
from survey_svc.redcap.breaker import FAILURES
from survey_svc.redcap.client import ATTEMPTS, RedcapApi
from survey_svc.redcap.project import LOOKUPS_RUNNING, LOOKUPS_WAITING, RedcapProject
from survey_svc.study.profile import Profile
from tests.survey_svc.redcap.conftest import GOOD, HTML, PDF, TOKEN, Redcap, json_response


class TestNonsense:
    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(json_response({"error": "out of memory"}), id="error with 200"),
            pytest.param(json_response({"count": 1}), id="object"),
            pytest.param(json_response(["r1"]), id="list of texts"),
            pytest.param(json_response([{"record_id": "r1"}]), id="row without the user"),
            pytest.param(
                json_response([{n: v for n, v in GOOD.items() if n != "form_complete"}]),
                id="row without a state",
            ),
            pytest.param(json_response("r1"), id="text"),
            pytest.param(json_response([GOOD | {"email": ["x"]}]), id="list as a value"),
            pytest.param(json_response([GOOD | {"email": {"a": 1}}]), id="object as a value"),
            pytest.param(
                httpx.Response(200, text=json.dumps([GOOD | {"email": "\ud800"}])),
                id="lone surrogate",
            ),
            pytest.param(httpx.Response(200, content=b"\xff\xfe["), id="no text"),
            pytest.param(httpx.Response(302, headers={"location": "/login"}), id="redirect"),
            pytest.param(httpx.Response(404, text=HTML), id="404"),
            pytest.param(httpx.Response(403, text=HTML), id="403 that is not REDCap's"),
        ],
    )
    async def test_rows(
        self, project: RedcapProject, redcap: Redcap, answer: httpx.Response
    ) -> None:
        """Anything but a list of rows is UPSTREAM_ERROR and is not retried."""
        redcap.answers = [answer]

        with pytest.raises(UpstreamError) as ei:
            await project.rows(["ada"])

        assert not isinstance(ei.value, RefusedError)
        assert 1 == len(redcap.asked)

    async def test_deeply_nested(self, project: RedcapProject, redcap: Redcap) -> None:
        """JSON nested beyond the parser's limit is an upstream error, also in an error body."""
        redcap.answers = [httpx.Response(200, text="[" * 200_000)]
        with pytest.raises(UpstreamError):
            await project.rows(["ada"])

        redcap.answers = [httpx.Response(400, text="[" * 200_000)]
        with pytest.raises(UpstreamError):
            await project.rows(["ada"])

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(json_response({"count": 0}), id="nothing stored"),
            pytest.param(json_response({"count": 2}), id="too much stored"),
            pytest.param(json_response(["r1"]), id="ids"),
            pytest.param(httpx.Response(200, text=HTML), id="HTML"),
            pytest.param(httpx.Response(200, text=""), id="empty"),
        ],
    )
    async def test_save(
        self, project: RedcapProject, redcap: Redcap, answer: httpx.Response
    ) -> None:
        """An import succeeds only if REDCap reports one stored record."""
        redcap.answers = [answer]

        with pytest.raises(UpstreamError):
            await project.save(GOOD)

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("hello", InvalidUrlError),
            ("javascript:alert(1)", InvalidUrlError),
            ("http://a b", InvalidUrlError),
            (HTML, UpstreamError),
            ("", UpstreamError),
            ('{"error":"no"}', UpstreamError),
        ],
    )
    async def test_link(
        self, project: RedcapProject, redcap: Redcap, text: str, error: type[Exception]
    ) -> None:
        """Only http and https URLs become links."""
        redcap.answers = [httpx.Response(200, text=text)]

        with pytest.raises(error):
            await project.link("r1", "form")

    async def test_links(self, project: RedcapProject, redcap: Redcap) -> None:
        """Only rows with a record and a link count in a participant list."""
        url = "http://redcap.test/surveys/?s=A"
        redcap.answers = [
            json_response(
                [
                    {"record": "r1", "survey_link": url},
                    {"record": "", "survey_link": url},
                    {"survey_link": url},
                    {"record": "r2", "survey_link": "javascript:alert(1)"},
                    {"record": "r3", "survey_link": None},
                ]
            )
        ]

        assert {"r1": url} == await project.links("form")

    @pytest.mark.parametrize("body", [HTML.encode(), b"", b'{"error":"no"}', b"%PD"])
    async def test_pdf(self, project: RedcapProject, redcap: Redcap, body: bytes) -> None:
        """A response that does not start like a PDF is rejected; none of it is passed on."""
        redcap.answers = [httpx.Response(200, content=body)]

        with pytest.raises(UpstreamError):
            await anext(project.pdf("r1", "form"))

    async def test_foreign_rows(self, project: RedcapProject, redcap: Redcap) -> None:
        """Rows that were not requested are omitted."""
        redcap.answers = [json_response([GOOD, {**GOOD, "record_id": "r2", "userid": "eve"}])]

        assert ["r1"] == [row["record_id"] for row in await project.rows(["ada"])]
        assert ["r1"] == await project.records("ada")
        assert 1 == len(await project.answers("ada", ["r1", "r2"]))
        assert ["r1"] == [row["record_id"] for row in await project.rows_by_id("ada", ["r1", "r2"])]


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without a pause."""
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda _: sleep(0))


class TestRetries:
    @pytest.mark.parametrize("status", [204, 408, 425, 429, 500, 502, 503, 504, 507, 520, 522])
    async def test_export(self, project: RedcapProject, redcap: Redcap, status: int) -> None:
        """A transient failure of an export is not visible."""
        redcap.answers = [httpx.Response(status), httpx.Response(status), json_response([GOOD])]

        assert 1 == len(await project.rows(["ada"]))

    async def test_empty(self, project: RedcapProject, redcap: Redcap) -> None:
        """An empty response with status 200 is transient: retried, then UPSTREAM_ERROR."""
        redcap.answers = [httpx.Response(200, text=""), json_response([GOOD])]
        assert 1 == len(await project.rows(["ada"]))

        redcap.asked.clear()
        redcap.answers = [httpx.Response(200, text=" \n")]
        with pytest.raises(UpstreamError):
            await project.rows(["ada"])
        assert ATTEMPTS == len(redcap.asked)

    async def test_empty_kinds(self, project: RedcapProject, redcap: Redcap) -> None:
        """Links, imports and files are also retried after an empty response."""
        redcap.answers = [httpx.Response(200), httpx.Response(200, text="http://redcap.test/s")]
        assert "http://redcap.test/s" == await project.link("r1", "form")

        redcap.answers = [httpx.Response(200), json_response({"count": 1})]
        await project.save(GOOD)

        redcap.answers = [httpx.Response(204), httpx.Response(200, content=PDF)]
        assert PDF == b"".join([piece async for piece in project.pdf("r1", "form")])

    async def test_missing_record(self, project: RedcapProject, redcap: Redcap) -> None:
        """An export without a requested record is retried and then rejected, never passed on."""
        both = [GOOD, GOOD | {"record_id": "r2"}]
        redcap.answers = [json_response([GOOD]), json_response(both)]
        assert 2 == len(await project.answers("ada", ["r1", "r2"]))

        redcap.asked.clear()
        redcap.answers = [json_response([GOOD])]
        with pytest.raises(UpstreamError):
            await project.answers("ada", ["r1", "r2"])
        assert ATTEMPTS == len(redcap.asked)

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(json_response([GOOD | {"email": ["x"]}]), id="list as a value"),
            pytest.param(json_response({"count": 1}), id="object"),
            pytest.param(httpx.Response(200, content=b"\xff\xfe["), id="no text"),
            pytest.param(httpx.Response(200, text="[" * 200_000), id="nested too deeply"),
            pytest.param(json_response({"error": "out of memory"}), id="error with 200"),
            pytest.param(json_response({"error": "out of memory"}, 500), id="error with 500"),
            pytest.param(json_response({"error": "no right"}, 403), id="error with 403"),
        ],
    )
    async def test_alive(
        self, project: RedcapProject, redcap: Redcap, answer: httpx.Response, no_pause: None
    ) -> None:
        """What fails for its content, or with REDCap's own error, leaves the circuit closed."""
        redcap.answers = [answer]
        for _ in range(FAILURES + 1):
            with pytest.raises(UpstreamError):
                await project.rows(["ada"])

        redcap.answers = [json_response([GOOD])]
        assert 1 == len(await project.rows(["ada"]))

    async def test_upsert(self, project: RedcapProject, redcap: Redcap) -> None:
        """An import is retried as well: with its own record id, it is idempotent."""
        redcap.answers = [httpx.Response(503), json_response({"count": 1})]

        await project.save(GOOD)

        assert redcap.asked[0]["data"] == redcap.asked[1]["data"]

    @pytest.mark.parametrize(
        ("status", "error"),
        [(503, UnavailableError), (504, UnavailableError), (500, UpstreamError)],
    )
    async def test_gives_up(
        self, project: RedcapProject, redcap: Redcap, status: int, error: type[Exception]
    ) -> None:
        """A persistent failure is reported after a few attempts."""
        redcap.answers = [httpx.Response(status)]

        with pytest.raises(error):
            await project.rows(["ada"])

        assert ATTEMPTS == len(redcap.asked)

    async def test_refusal(self, project: RedcapProject, redcap: Redcap) -> None:
        """A rejection by REDCap is not retried, and its text is not exposed."""
        redcap.answers = [json_response({"error": "ada@example.org is not valid"}, 400)]

        with pytest.raises(RefusedError) as ei:
            await project.save(GOOD)

        assert 1 == len(redcap.asked)
        assert "ada" not in str(ei.value)

    @pytest.mark.parametrize("attempts", [1, ATTEMPTS])
    async def test_breaker(
        self, project: RedcapProject, redcap: Redcap, attempts: int, no_pause: None
    ) -> None:
        """After consecutive failed calls, others fail without reaching REDCap."""
        redcap.answers = [httpx.Response(404 if attempts == 1 else 503, text=HTML)]
        for _ in range(FAILURES):
            with pytest.raises(MeshError):
                await project.rows(["ada"])
        assert FAILURES * attempts == len(redcap.asked)

        with pytest.raises(UnavailableError):
            await project.rows(["ada"])
        assert FAILURES * attempts == len(redcap.asked)

    async def test_file_breaker(
        self, project: RedcapProject, redcap: Redcap, no_pause: None
    ) -> None:
        """Failing PDFs do not open the circuit of other operations."""
        redcap.answers = [httpx.Response(500, text=HTML)]
        for _ in range(FAILURES):
            with pytest.raises(UpstreamError):
                await anext(project.pdf("r1", "form"))
        with pytest.raises(UnavailableError):
            await anext(project.pdf("r1", "form"))

        redcap.answers = [json_response([GOOD])]
        assert 1 == len(await project.rows(["ada"]))
        with pytest.raises(UnavailableError):
            await anext(project.pdf("r1", "form"))


class TestLookups:
    @pytest.fixture
    async def lookups(self, redcap: Redcap, profile: Profile) -> AsyncIterator[RedcapProject]:
        """The adapter with a separate client for address look-ups."""
        apis = [
            RedcapApi(
                "http://redcap.test/api/",
                SecretStr(TOKEN),
                max_bytes=most,
                transport=httpx.MockTransport(redcap),
            )
            for most in (1024 * 1024, 1024)
        ]
        yield RedcapProject(apis[0], profile, lookups=apis[1])
        for api in apis:
            await api.close()

    async def test_breaker(self, lookups: RedcapProject, redcap: Redcap) -> None:
        """Failing look-ups do not open the circuit of signed-in users."""
        redcap.answers = [httpx.Response(404, text=HTML)]
        for _ in range(FAILURES):
            with pytest.raises(UpstreamError):
                await lookups.find_user("ada@example.org")
        with pytest.raises(UnavailableError):
            await lookups.find_user("ada@example.org")

        redcap.answers = [json_response([GOOD])]
        assert 1 == len(await lookups.rows(["ada"]))

    async def test_large(self, lookups: RedcapProject, redcap: Redcap) -> None:
        """
        A response with more than a few rows is aborted while it is read, and leaves the circuit
        closed.
        """
        row = {"email": "x@example.org", "userid": "ada", "created_at": "2026-01-01"}
        redcap.answers = [json_response([row] * 100)]

        for _ in range(FAILURES + 1):
            with pytest.raises(UpstreamError):
                await lookups.find_user("ada@example.org")

        redcap.answers = [json_response([])]
        assert "" == await lookups.find_user("ada@example.org")

    async def test_bulkhead(self, profile: Profile) -> None:
        """Few look-ups run, few wait, and the rest are rejected immediately."""
        asked = 0
        answered = asyncio.Event()

        async def serve(_: httpx.Request) -> httpx.Response:
            nonlocal asked
            asked += 1
            await answered.wait()
            return json_response([])

        transport = httpx.MockTransport(serve)
        api = RedcapApi("http://redcap.test/api/", SecretStr(TOKEN), transport=transport)
        project = RedcapProject(api, profile)
        most = LOOKUPS_RUNNING + LOOKUPS_WAITING
        waiting = [
            asyncio.create_task(project.find_user(f"{number}@example.org"))
            for number in range(most)
        ]
        while asked < LOOKUPS_RUNNING:
            await asyncio.sleep(0)

        with pytest.raises(UnavailableError):
            await project.find_user("one-more@example.org")
        assert LOOKUPS_RUNNING == asked
        answered.set()
        assert [""] * most == await asyncio.gather(*waiting)
        assert "" == await project.find_user("one-more@example.org")
        await api.close()


class TestSecrets:
    async def test_token(self, project: RedcapProject, redcap: Redcap) -> None:
        """The token is in the body of each call and in no URL."""
        redcap.answers = [json_response([GOOD])]
        await project.rows(["ada"])

        assert TOKEN == redcap.asked[0]["token"]
        assert all(TOKEN not in url for url in redcap.urls)
        assert TOKEN not in repr(vars(project))

    async def test_weird_record(self, project: RedcapProject, redcap: Redcap) -> None:
        """A record id is sent as a separate value, whatever it contains."""
        record = "x' or 1=1 #&token=y"
        redcap.answers = [httpx.Response(200, text="http://redcap.test/surveys/?s=A")]
        await project.link(record, "form")

        assert record == redcap.asked[0]["record"]
        assert TOKEN == redcap.asked[0]["token"]


class TestIsAlive:
    async def test_asks_rarely(self, project: RedcapProject, redcap: Redcap) -> None:
        """While REDCap responds, no liveness check is sent."""
        redcap.answers = [httpx.Response(200, text="16.1.9")]

        assert all([await project.is_alive() for _ in range(5)])
        assert ["version"] == [asked["content"] for asked in redcap.asked]

    @pytest.mark.parametrize("text", [HTML, "", '{"error":"x"}'])
    async def test_nonsense(self, project: RedcapProject, redcap: Redcap, text: str) -> None:
        """Anything but a version means that REDCap is not alive."""
        redcap.answers = [httpx.Response(200, text=text)]

        assert not await project.is_alive()
