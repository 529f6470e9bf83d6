"""The export of a user's data over the contract, as JSON, CSV and a workbook, and its codebook."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import openpyxl
import pytest
from amarre.survey.v1 import survey_service_pb2 as messages

from mesh.chassis.errors import from_rpc_error
from survey_svc.export import workbook
from tests.survey_svc.sandbox import Sandbox, request_row
from tests.survey_svc.world import World, reason_of

ROOT = Path(__file__).parents[3]


class TestExportData:
    async def test_json(self, world: World, sandbox: Sandbox, user: str) -> None:
        """The JSON export is an array of objects: raw names, labels, and only of this user."""
        sandbox.save(
            request_row(user, f"{user}-a", demandeur_statut="1", demandeur_nom="Ada"),
            request_row(f"{user}x", f"{user}-b", demandeur_statut="2", demandeur_nom="Eve"),
        )

        media_type, _, data = await world.file("ExportData", user, messages.ExportDataRequest())

        [row] = json.loads(data)
        assert "application/json" == media_type
        assert ("Ada", "Enseignant-chercheur") == (row["demandeur_nom"], row["demandeur_statut"])
        assert "Incomplete" == row["validation_finale_complete"]
        assert f"{user}-a" == row["record_id"]
        assert not {"userid", "email", "avis_laboratoire_position"} & set(row)

    async def test_csv(self, world: World, sandbox: Sandbox, user: str) -> None:
        """The CSV export is RFC 4180, and no spreadsheet evaluates an answer as a formula."""
        sandbox.save(
            request_row(
                user, f"{user}-a", demandeur_nom='=HYPERLINK("x")', demandeur_prenom="a, b\nc"
            )
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
        sandbox.save(request_row(user, f"{user}-a"), request_row(f"{user}x", f"{user}-b"))
        sandbox.fault(mode="ignore_filter")

        _, _, data = await world.file("ExportData", user, messages.ExportDataRequest())

        assert 1 == len(json.loads(data))


class TestExportSince:
    async def test_changed_requests(self, world: World, sandbox: Sandbox, user: str) -> None:
        """
        With since, only requests changed since then are returned, completely; a future time returns
        none.
        """
        sandbox.save(request_row(user, f"{user}-a", demandeur_nom="Ada"))
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
        sandbox.save(request_row(user, f"{user}-a"))
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
            request_row(user, f"{user}-a", demandeur_nom="Zoé Müller", demandeur_prenom="=1+1")
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
        described = [row[0].value for row in book["Codebook"].iter_rows(min_row=2)]
        assert described == [cell.value for cell in header]
        assert f"{user}-a" == answers["record_id"].value

    async def test_codebook(self, world: World, user: str) -> None:
        """The codebook comes as a workbook too."""
        _, name, data = await world.file(
            "ExportData", user, messages.ExportDataRequest(format="xlsx", codebook=True)
        )

        assert "codebook.xlsx" == name
        assert ["Codebook"] == openpyxl.load_workbook(io.BytesIO(data)).sheetnames

    @pytest.mark.parametrize(
        "file", ["gateway/pages/texts/en.yaml", "protos/amarre/survey/v1/survey_service.proto"]
    )
    def test_stated_limit(self, file: str) -> None:
        """The page and the contract state the limit of a workbook."""
        assert f"t most {workbook.MAX_ROWS:,} requests" in (ROOT / file).read_text()

    async def test_too_many(
        self, world: World, sandbox: Sandbox, user: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """More requests than a workbook can hold are rejected with an alternative."""
        monkeypatch.setattr(workbook, "MAX_ROWS", 1)
        sandbox.save(request_row(user, f"{user}-a"), request_row(user, f"{user}-b"))

        with pytest.raises(grpc.aio.AioRpcError) as ei:
            await world.file("ExportData", user, messages.ExportDataRequest(format="xlsx"))

        assert "INVALID_REQUEST" == reason_of(ei.value)

    def test_long_answer(self) -> None:
        """An answer longer than a cell is truncated and marked."""
        data = workbook._build({"Answers": (("a",), [{"a": "x" * (workbook.MAX_CELL + 1)}])})

        value = openpyxl.load_workbook(io.BytesIO(data))["Answers"]["A2"].value
        assert workbook.MAX_CELL == len(value)
        assert value.endswith(workbook.CUT)
