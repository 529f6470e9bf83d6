"""The service over mTLS with the real sandbox, as the gateway and Auth see it."""

import asyncio
import csv
import io
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import httpx
import openpyxl
import pytest
from amarre.survey.v1 import survey_pb2 as pb
from amarre.survey.v1 import survey_service_pb2 as messages
from amarre.survey.v1.survey_service_pb2_grpc import SurveyServiceStub

from mesh.chassis.errors import from_rpc_error
from mesh.chassis.testing import connected
from survey_svc.export import workbook
from tests.survey_svc.sandbox import Sandbox
from tests.survey_svc.world import World, reason_of


def _request(user: str, record: str, **values: str) -> dict[str, str]:
    created = "2026-03-01T10:00:00Z"
    return {"record_id": record, "created_at": created, "userid": user} | values


class TestCreateRequest:
    async def test_creates_one_record(self, world: World, sandbox: Sandbox, user: str) -> None:
        """A creation stores one record with owner, address and time, and returns its id."""
        answer = await world.create(user)

        [record] = sandbox.records(user)
        assert 1 == answer.new_request_created
        assert answer.id == record["record_id"]
        assert "ada@example.org" == record["email"]
        assert "1" == record["contact_complete"]
        assert record["created_at"].endswith("Z")

    async def test_needs_consent(self, world: World, sandbox: Sandbox, user: str) -> None:
        """Without consent, REDCap is not called and nothing is created."""
        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.create(user, consent=False)

        assert "CONSENT_REQUIRED" == reason_of(ei.value)
        assert {} == sandbox.calls()

    async def test_open_request_stands_in_the_way(self, world: World, user: str) -> None:
        """A second request is not permitted while the form of the first one is incomplete."""
        await world.create(user)

        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.create(user)

        assert "OPEN_REQUEST_EXISTS" == reason_of(ei.value)

    async def test_after_the_form_is_complete(
        self, world: World, sandbox: Sandbox, user: str
    ) -> None:
        """A request whose form is complete does not prevent a new one."""
        first = await world.create(user)
        sandbox.save({"record_id": first.id, "form_complete": "2"})

        second = await world.create(user)

        assert first.id != second.id
        assert 2 == len(sandbox.records(user))

    async def test_hundred_at_once(self, world: World, sandbox: Sandbox, user: str) -> None:
        """A hundred concurrent creations of one user create exactly one record."""
        outcomes = await asyncio.gather(
            *(world.create(user) for _ in range(100)), return_exceptions=True
        )

        created = [o for o in outcomes if isinstance(o, messages.CreateRequestResponse)]
        refused = {reason_of(o) for o in outcomes if isinstance(o, grpc.aio.AioRpcError)}
        assert 1 == len(created)
        assert refused <= {"OPEN_REQUEST_EXISTS", "UNAVAILABLE"}
        assert [created[0].id] == [record["record_id"] for record in sandbox.records(user)]

    async def test_same_key_same_answer(self, world: World, sandbox: Sandbox, user: str) -> None:
        """A retry with the same key and input gets the same response and creates nothing."""
        first = await world.create(user, idempotency_key="k1")
        again = await world.create(user, idempotency_key="k1")

        assert first == again
        assert 1 == len(sandbox.records(user))

    async def test_same_key_at_once(self, world: World, sandbox: Sandbox, user: str) -> None:
        """Retries that overtake one another all get the same response."""
        answers = await asyncio.gather(
            *(world.create(user, idempotency_key="k1") for _ in range(10))
        )

        assert 1 == len({answer.id for answer in answers})
        assert 1 == len(sandbox.records(user))

    async def test_same_key_other_input(self, world: World, user: str) -> None:
        """A key cannot be reused with other input."""
        await world.create(user, idempotency_key="k1", notice_version="2026-01")

        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.create(user, idempotency_key="k1", notice_version="2026-02")

        assert "IDEMPOTENCY_KEY_REUSED" == reason_of(ei.value)

    @pytest.mark.parametrize(
        ("mode", "reasons"),
        [
            ("500", {"UPSTREAM_ERROR", "UNAVAILABLE"}),
            ("html", {"UPSTREAM_ERROR"}),
            ("empty", {"UPSTREAM_ERROR"}),
        ],
    )
    async def test_redcap_fails(
        self, world: World, sandbox: Sandbox, user: str, mode: str, reasons: set[str]
    ) -> None:
        """
        If REDCap fails or returns an invalid response, nothing is created, and the next attempt
        works.
        """
        sandbox.fault(mode=mode)
        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.create(user)
        sandbox.fault()

        assert reason_of(ei.value) in reasons
        assert [] == sandbox.records(user)
        assert 1 == (await world.create(user)).new_request_created
        assert 1 == len(sandbox.records(user))

    async def test_filter_ignored(self, world: World, sandbox: Sandbox, user: str) -> None:
        """With a REDCap that ignores filters, others' open requests are not ours."""
        sandbox.save(_request("somebody-else", f"open-{user}"))
        sandbox.fault(mode="ignore_filter")

        answer = await world.create(user)
        listed = await world.list(user)

        assert [answer.id] == [request.id for request in listed.requests]


class TestListRequests:
    async def test_shows_new_request(self, world: World, sandbox: Sandbox, user: str) -> None:
        """A new request has its form to do, with a link, and its final validation closed."""
        created = await world.create(user)

        [request] = (await world.list(user)).requests

        form, final = request.steps
        assert created.id == request.id
        assert pb.REQUEST_STATUS_TO_COMPLETE == request.status
        assert pb.STEP_STATE_TO_DO == form.state
        assert form.url.startswith(f"{sandbox.url}/surveys/?s=")
        assert pb.STEP_STATE_NOT_AVAILABLE == final.state
        assert "" == final.url

    async def test_shows_labels(self, world: World, sandbox: Sandbox, user: str) -> None:
        """Titles and display fields are labels, not codes."""
        sandbox.save(
            _request(
                user,
                f"r-{user}",
                demandeur_statut="5",
                mobilite_destination_categorie="2",
                mobilite_universite_gu8="10",
                form_complete="2",
            )
        )

        [request] = (await world.list(user)).requests

        assert "Xiamen (Chine)" == request.title
        assert "Doctorant" == request.fields["demandeur_statut"]
        assert ["form", "labo", "encadrant", "validation_finale"] == [
            step.instrument for step in request.steps
        ]
        assert pb.REQUEST_STATUS_TO_FOLLOW == request.status

    async def test_newest_first_in_pages(self, world: World, sandbox: Sandbox, user: str) -> None:
        """Pages follow one another, newest first, without duplicates."""
        sandbox.save(
            *(
                _request(user, f"{user}-{n}", form_complete="2")
                | {"created_at": f"2026-03-0{n}T10:00:00Z"}
                for n in range(1, 6)
            )
        )

        seen, token = [], ""
        for _ in range(3):
            answer = await world.list(user, page_size=2, page_token=token)
            seen += [request.id for request in answer.requests]
            token = answer.next_page_token

        assert [f"{user}-{n}" for n in (5, 4, 3, 2, 1)] == seen
        assert "" == token

    async def test_foreign_page_token(self, world: World, user: str) -> None:
        """An invalid page token is rejected."""
        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.list(user, page_token="bm9uc2Vuc2U=")

        assert "INVALID_REQUEST" == reason_of(ei.value)

    @pytest.mark.parametrize("n", [1, 10, 50])
    async def test_constant_calls(self, world: World, sandbox: Sandbox, user: str, n: int) -> None:
        """A list takes at most 3 calls for any number of requests, then none while cached."""
        final = {"form_complete": "2", "invite_nom": "Bo"}
        sandbox.save(*(_request(user, f"{user}-{at}", **final) for at in range(n)))
        for at in range(n):
            await _ask_link(sandbox, f"{user}-{at}")
        sandbox.clear_calls()

        assert n == len((await world.list(user)).requests)
        first = sum(sandbox.calls().values())
        await world.list(user)

        assert 3 >= first
        assert first == sum(sandbox.calls().values())

    @pytest.mark.parametrize("mode", ["html", "empty", "500"])
    async def test_redcap_fails(self, world: World, sandbox: Sandbox, user: str, mode: str) -> None:
        """An outage is an error, never an empty list."""
        sandbox.fault(mode=mode)

        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.list(user)

        assert reason_of(ei.value) in {"UPSTREAM_ERROR", "UNAVAILABLE"}

    async def test_redcap_hangs(self, world: World, sandbox: Sandbox, user: str) -> None:
        """A REDCap that hangs is abandoned within the caller's deadline."""
        sandbox.fault(mode="hang")

        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.stub.ListRequests(
                messages.ListRequestsRequest(), metadata=world.as_user(user), timeout=1.5
            )

        assert "DEADLINE_EXCEEDED" == reason_of(ei.value)


async def _ask_link(sandbox: Sandbox, record: str) -> None:
    body = {"token": sandbox.token, "content": "surveyLink", "record": record}

    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(sandbox.api_url, data=body | {"instrument": "validation_finale"})
        assert answer.text.startswith("http")


class TestGetLink:
    async def test_own(self, world: World, user: str) -> None:
        """The applicant gets the links of the form and of the final validation."""
        created = await world.create(user)

        assert (await world.link(user, created.id, "form")).startswith("http://")
        assert (await world.link(user, created.id, "validation_finale")).startswith("http://")

    @pytest.mark.parametrize("instrument", ["labo", "admin", "contact", "nonsense"])
    async def test_not_the_applicants(self, world: World, user: str, instrument: str) -> None:
        """Links of approvers' forms, non-surveys and unknown instruments are rejected."""
        created = await world.create(user)

        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.link(user, created.id, instrument)

        assert "INVALID_REQUEST" == reason_of(ei.value)

    @pytest.mark.parametrize(
        "instrument", ["form", "labo", "nonsense", pytest.param("x" * 10_000, id="endless")]
    )
    async def test_foreign(self, world: World, user: str, instrument: str) -> None:
        """Another user's record appears not to exist; this is checked first."""
        created = await world.create(user)

        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.link("somebody", created.id, instrument)

        assert "NOT_FOUND" == reason_of(ei.value)

    @pytest.mark.parametrize(
        "record",
        [
            "' or 1=1 #",
            pytest.param("x" * 10_000, id="endless"),
            '" or ""="',
            "[userid]",
            "a\x00b",
            "%27%20or%201=1",
            "é" * 50,
            "../x",
            " ",
        ],
    )
    async def test_weird_records(self, world: World, user: str, record: str) -> None:
        """Ids with quotes, brackets, control characters or escapes are simply not found."""
        await world.create(user)

        for call in (
            world.link(user, record, "form"),
            world.file("GetPdf", user, messages.GetPdfRequest(record_id=record)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as ei:
                await call
            assert "NOT_FOUND" == reason_of(ei.value)


class TestGetPdf:
    async def test_own(self, world: World, user: str) -> None:
        """The applicant gets a PDF whose name contains the id."""
        created = await world.create(user)

        media_type, name, data = await world.file(
            "GetPdf", user, messages.GetPdfRequest(record_id=created.id)
        )

        assert "application/pdf" == media_type
        assert f"formulaire_{created.id}.pdf" == name
        assert data.startswith(b"%PDF-")

    async def test_foreign(self, world: World, user: str) -> None:
        """Another user's PDF appears not to exist."""
        created = await world.create(user)

        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.file("GetPdf", "other", messages.GetPdfRequest(record_id=created.id))

        assert "NOT_FOUND" == reason_of(ei.value)

    async def test_name_is_harmless(self, world: World, sandbox: Sandbox, user: str) -> None:
        """A record id with quotes and line ends does not get into a file name."""
        sandbox.save(_request(user, f'{user} "x";y'))

        _, name, _ = await world.file(
            "GetPdf", user, messages.GetPdfRequest(record_id=f'{user} "x";y')
        )

        assert f"formulaire_{user}__x__y.pdf" == name

    @pytest.mark.parametrize("mode", ["html", "empty", "500"])
    async def test_no_pdf(self, world: World, sandbox: Sandbox, user: str, mode: str) -> None:
        """A response that is not a PDF is never passed on as one."""
        created = await world.create(user)
        await world.list(user)  # Whose it is, is known; only the PDF itself meets the fault.
        sandbox.fault(mode=mode)

        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.file("GetPdf", user, messages.GetPdfRequest(record_id=created.id))

        assert reason_of(ei.value) in {"UPSTREAM_ERROR", "UNAVAILABLE"}


class TestExportData:
    async def test_json(self, world: World, sandbox: Sandbox, user: str) -> None:
        """The JSON export is an array of objects: raw names, labels, and only of this user."""
        sandbox.save(
            _request(user, f"{user}-a", demandeur_statut="1", demandeur_nom="Ada"),
            _request(f"{user}x", f"{user}-b", demandeur_statut="2", demandeur_nom="Eve"),
        )

        media_type, _, data = await world.file("ExportData", user, messages.ExportDataRequest())

        [row] = json.loads(data)
        assert "application/json" == media_type
        assert ("Ada", "Enseignant-chercheur") == (row["demandeur_nom"], row["demandeur_statut"])
        assert "Incomplete" == row["validation_finale_complete"]
        assert not {"userid", "email", "avis_laboratoire_position"} & set(row)

    async def test_csv(self, world: World, sandbox: Sandbox, user: str) -> None:
        """The CSV export is RFC 4180, and no spreadsheet evaluates an answer as a formula."""
        sandbox.save(
            _request(user, f"{user}-a", demandeur_nom='=HYPERLINK("x")', demandeur_prenom="a, b\nc")
        )

        media_type, name, data = await world.file(
            "ExportData", user, messages.ExportDataRequest(format="csv")
        )

        [row] = csv.DictReader(io.StringIO(data.decode(), newline=""))
        assert ("text/csv; charset=utf-8", "export.csv") == (media_type, name)
        assert data.startswith(b"demandeur_nom,")
        assert '\'=HYPERLINK("x")' == row["demandeur_nom"]
        assert "a, b\nc" == row["demandeur_prenom"]

    @pytest.mark.parametrize(("form", "expected"), [("json", b"[]"), ("csv", b"demandeur_nom,")])
    async def test_nothing(self, world: World, user: str, form: str, expected: bytes) -> None:
        """A user without requests gets an empty array, or only a header."""
        _, _, data = await world.file("ExportData", user, messages.ExportDataRequest(format=form))

        assert data.startswith(expected)
        assert 2 >= len(data.splitlines())

    async def test_filter_ignored(self, world: World, sandbox: Sandbox, user: str) -> None:
        """If REDCap ignores filters, other users' answers are not exported."""
        sandbox.save(_request(user, f"{user}-a"), _request(f"{user}x", f"{user}-b"))
        sandbox.fault(mode="ignore_filter")

        _, _, data = await world.file("ExportData", user, messages.ExportDataRequest())

        assert 1 == len(json.loads(data))


class TestExportSince:
    async def test_changed_requests(self, world: World, sandbox: Sandbox, user: str) -> None:
        """
        With since, only requests changed since then are returned, completely; a future time returns
        none.
        """
        sandbox.save(_request(user, f"{user}-a", demandeur_nom="Ada"))
        now = datetime.now(UTC)

        found = {
            since: len(json.loads(await self._export(world, user, since=since)))
            for since in (
                (now - timedelta(minutes=1)).isoformat(),
                (now + timedelta(minutes=1)).isoformat(),
                (now + timedelta(minutes=1)).astimezone(timezone(timedelta(hours=-9))).isoformat(),
                "2000-01-01T00:00:00Z",
            )
        }

        assert [1, 0, 0, 1] == list(found.values())

    @pytest.mark.parametrize(
        "since", ["yesterday", "2026-02-30T00:00:00Z", "2026-01-01", "2026-01-01T00:00:00", "-15m"]
    )
    async def test_not_a_time(self, world: World, user: str, since: str) -> None:
        """A value that is not an RFC 3339 time is INVALID_REQUEST with the parameter's name."""
        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await self._export(world, user, since=since)

        error = from_rpc_error(ei.value)
        assert "INVALID_REQUEST" == error.contract.name
        assert ["since"] == [violation.field for violation in error.violations]

    async def _export(self, world: World, user: str, **fields: Any) -> bytes:
        _, _, data = await world.file("ExportData", user, messages.ExportDataRequest(**fields))
        return data


class TestCodebook:
    async def test_explains_every_column(self, world: World, sandbox: Sandbox, user: str) -> None:
        """The codebook has one row per column of the export, in order, with choices."""
        sandbox.save(_request(user, f"{user}-a"))
        _, _, data = await world.file("ExportData", user, messages.ExportDataRequest())
        columns = list(json.loads(data)[0])

        _, _, book = await world.file("ExportData", user, messages.ExportDataRequest(codebook=True))

        rows = json.loads(book)
        assert columns == [row["name"] for row in rows]
        [status] = [row for row in rows if row["name"] == "demandeur_statut"]
        assert "form" == status["form"]
        assert status["label"]
        assert status["choices"].startswith("1, Enseignant-chercheur | ")

    async def test_csv(self, world: World, user: str) -> None:
        """The codebook is returned in the requested format, under its own name."""
        media_type, name, data = await world.file(
            "ExportData", user, messages.ExportDataRequest(codebook=True, format="csv")
        )

        assert ("text/csv; charset=utf-8", "codebook.csv") == (media_type, name)
        assert data.startswith(b"name,form,type,label,choices\r\n")


class TestWorkbook:
    async def test_answers_and_codebook(self, world: World, sandbox: Sandbox, user: str) -> None:
        """A workbook has answers with accents, no formulas, and the codebook."""
        sandbox.save(
            _request(user, f"{user}-a", demandeur_nom="Zoé Müller", demandeur_prenom="=1+1")
        )

        media_type, name, data = await world.file(
            "ExportData", user, messages.ExportDataRequest(format="xlsx")
        )

        book = openpyxl.load_workbook(io.BytesIO(data))
        header, row = book["Answers"].iter_rows()
        answers = {cell.value: value for cell, value in zip(header, row, strict=True)}
        assert (workbook.MEDIA_TYPE, "export.xlsx") == (media_type, name)
        assert "Zoé Müller" == answers["demandeur_nom"].value
        assert ("=1+1", "s") == (
            answers["demandeur_prenom"].value,
            answers["demandeur_prenom"].data_type,
        )
        assert len(header) == book["Codebook"].max_row - 1

    async def test_codebook(self, world: World, user: str) -> None:
        """The codebook comes as a workbook too."""
        _, name, data = await world.file(
            "ExportData", user, messages.ExportDataRequest(format="xlsx", codebook=True)
        )

        assert "codebook.xlsx" == name
        assert ["Codebook"] == openpyxl.load_workbook(io.BytesIO(data)).sheetnames

    async def test_too_many(
        self, world: World, sandbox: Sandbox, user: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """More requests than a workbook can hold are rejected with an alternative."""
        monkeypatch.setattr(workbook, "MAX_ROWS", 1)
        sandbox.save(_request(user, f"{user}-a"), _request(user, f"{user}-b"))

        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.file("ExportData", user, messages.ExportDataRequest(format="xlsx"))

        assert "INVALID_REQUEST" == reason_of(ei.value)

    def test_long_answer(self) -> None:
        """An answer longer than a cell is truncated and marked."""
        data = workbook._build({"Answers": (("a",), [{"a": "x" * (workbook.MAX_CELL + 1)}])})

        value = openpyxl.load_workbook(io.BytesIO(data))["Answers"]["A2"].value
        assert workbook.MAX_CELL == len(value)
        assert value.endswith(workbook.CUT)


class TestFindContact:
    @pytest.fixture
    async def auth(self, world: World, svids: Path) -> Any:
        """A stub with the identity of Auth, the only permitted caller."""
        async with connected("survey", world.port, svids / "auth", SurveyServiceStub) as stub:
            yield stub

    @pytest.mark.parametrize(
        ("stored", "asked"),
        [
            ("grace.{0}@example.org", "Grace.{0}@EXAMPLE.org"),
            ("a%b.{0}@example.org", "A%b.{0}@example.org"),
            ("o'brien.{0}@example.org", "O'Brien.{0}@example.org"),
            ("a+b.{0}@example.org", "a+b.{0}@example.org"),
        ],
    )
    async def test_known(
        self, auth: Any, sandbox: Sandbox, user: str, stored: str, asked: str
    ) -> None:
        """A known address returns its user id, in any case, also with special characters."""
        sandbox.save(_request(user, f"c-{user}", email=stored.format(user)))

        answer = await auth.FindContact(messages.FindContactRequest(email=asked.format(user)))

        assert user == answer.user_id

    @pytest.mark.parametrize(
        "email", ["nobody@example.org", "' or 1=1 #@example.org", '"x" or 1=1 #@example.org', "x"]
    )
    async def test_unknown(self, auth: Any, sandbox: Sandbox, user: str, email: str) -> None:
        """An unknown address returns no id, nor does one that tries to inject into the filter."""
        sandbox.save(_request(user, f"c-{user}", email=f"x{user}@example.org"))

        answer = await auth.FindContact(messages.FindContactRequest(email=email))

        assert "" == answer.user_id

    async def test_redcap_fails(self, auth: Any, sandbox: Sandbox) -> None:
        """If the look-up fails, the address is not reported as unknown."""
        sandbox.fault(mode="html")

        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await auth.FindContact(messages.FindContactRequest(email="ada@example.org"))

        assert "UPSTREAM_ERROR" == reason_of(ei.value)

    async def test_gateway_may_not(self, world: World) -> None:
        """The gateway may not look up addresses."""
        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.stub.FindContact(messages.FindContactRequest(email="ada@example.org"))

        assert "PERMISSION_DENIED" == reason_of(ei.value)
