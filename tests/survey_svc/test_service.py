"""The service over mTLS with the real sandbox, as the gateway and Auth see it."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from amarre.survey.v1 import survey_pb2 as pb
from amarre.survey.v1 import survey_service_pb2 as messages
from amarre.survey.v1.survey_service_pb2_grpc import SurveyServiceStub

from mesh.chassis.testing import connected
from tests.survey_svc.sandbox import Sandbox, request_row
from tests.survey_svc.world import World, reason_of


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

    @pytest.mark.parametrize("version", ["2026-01\0", "=1+1", "-", "2026 01", "x" * 65])
    async def test_odd_notice(
        self, world: World, sandbox: Sandbox, user: str, version: str
    ) -> None:
        """What cannot be the version of a notice is not stored as evidence of consent."""
        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.create(user, notice_version=version)

        assert "INVALID_REQUEST" == reason_of(ei.value)
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
        sandbox.save(request_row("somebody-else", f"open-{user}"))
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
            request_row(
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
                request_row(user, f"{user}-{n}", form_complete="2")
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
        sandbox.save(*(request_row(user, f"{user}-{at}", **final) for at in range(n)))
        for at in range(n):
            await _ask_link(sandbox, f"{user}-{at}")
        sandbox.clear_calls()

        assert n == len((await world.list(user)).requests)
        first = sum(sandbox.calls().values())
        await world.list(user)

        assert 3 >= first
        assert first == sum(sandbox.calls().values())

    @pytest.mark.parametrize("mode", ["html", "empty", "500", "partial"])
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
        sandbox.save(request_row(user, f'{user} "x";y'))

        _, name, _ = await world.file(
            "GetPdf", user, messages.GetPdfRequest(record_id=f'{user} "x";y')
        )

        assert f"formulaire_{user}__x__y.pdf" == name

    @pytest.mark.parametrize("mode", ["html", "empty", "500", "partial"])
    async def test_no_pdf(self, world: World, sandbox: Sandbox, user: str, mode: str) -> None:
        """A response that is not a PDF is never passed on as one."""
        created = await world.create(user)
        await world.list(user)  # Whose it is, is known; only the PDF itself meets the fault.
        sandbox.fault(mode=mode)

        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.file("GetPdf", user, messages.GetPdfRequest(record_id=created.id))

        assert reason_of(ei.value) in {"UPSTREAM_ERROR", "UNAVAILABLE"}


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
        sandbox.save(request_row(user, f"c-{user}", email=stored.format(user)))

        answer = await auth.FindContact(messages.FindContactRequest(email=asked.format(user)))

        assert user == answer.user_id

    @pytest.mark.parametrize(
        "email", ["nobody@example.org", "' or 1=1 #@example.org", '"x" or 1=1 #@example.org', "x"]
    )
    async def test_unknown(self, auth: Any, sandbox: Sandbox, user: str, email: str) -> None:
        """An unknown address returns no id, nor does one that tries to inject into the filter."""
        sandbox.save(request_row(user, f"c-{user}", email=f"x{user}@example.org"))

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
