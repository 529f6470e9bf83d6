"""Record export: filters, columns and formats."""

import json
import re
import sqlite3
from pathlib import Path

import httpx
import pytest

from sandbox.redcap.filter_logic.prefilter import Required
from sandbox.redcap.records import storage
from sandbox.redcap.setup import open_store
from sandbox.redcap.store import MAX_INDEXES, Store
from tests.mesh.local.conftest import disk, fill
from tests.sandbox.redcap.conftest import TOKEN, Api, Server, calls_to, config


class TestIndexedFilter:
    @pytest.mark.parametrize(
        ("logic", "names"),
        [
            ("lower([mail]) = 'ada@x.org'", ["1"]),
            ("[mail] = 'Ada@X.org'", ["1"]),
            ("[mail] = 'ada@x.org'", []),
            ("[mail] = 'Ada@X.org' or [mail] = 'bo@x.org'", ["1", "2"]),
            ("[mail] = 'Ada@X.org' and [n] = '1'", ["1"]),
            ("[mail] = 'Ada@X.org' or [n] = '2'", ["1", "2"]),
            ("lower([note]) = 'é'", ["1"]),
            ("[note] = 'É'", ["1"]),
        ],
    )
    async def test_same_answer(self, types: Api, logic: str, names: list[str]) -> None:
        """A filter served by an index finds the same records as reading all of them."""
        await types.save(
            {"id": "1", "mail": "Ada@X.org", "n": "1", "note": "É"},
            {"id": "2", "mail": "bo@x.org", "n": "2", "note": "e"},
        )

        found = await types.export(fields=["id"], filterLogic=logic)

        assert names == [row["id"] for row in found]

    def test_plan(self, tmp_path: Path) -> None:
        """A lookup by an answer uses an index instead of scanning the records (A8)."""
        store = Store(tmp_path / "redcap.sqlite")
        assert store.index_answers("email")
        assert not store.index_answers("e'")
        statements: list[str] = []
        with store.reading() as db:
            db.set_trace_callback(statements.append)
            list(storage.stream(db, 1, holding=Required("email", frozenset({"a@x.org"}))))
            db.set_trace_callback(None)
            plan = [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statements[0]}")]
        store.close()

        assert any("INDEX entry_value_email" in step for step in plan), plan
        assert not any(re.match(r"SCAN [her]\b", step) for step in plan), plan

    def test_closed(self, tmp_path: Path) -> None:
        """A connection in use while the store closes is closed after its use."""
        store = Store(tmp_path / "redcap.sqlite")
        with store.reading() as used:
            store.close()
            used.execute("SELECT 1")
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            used.execute("SELECT 1")

    def test_bounded(self, tmp_path: Path) -> None:
        """Filters on many fields do not make imports slower and slower."""
        store = Store(tmp_path / "redcap.sqlite")
        made = [store.index_answers(f"field{number}") for number in range(MAX_INDEXES + 3)]
        store.close()

        assert MAX_INDEXES == sum(made)
        again = Store(tmp_path / "redcap.sqlite")
        assert again.index_answers("field0")
        assert not again.index_answers("another")
        again.close()


class TestFlatExport:
    async def test_columns(self, types: Api) -> None:
        """Dictionary order; one column per choice; status after each form; no descriptive text."""
        await types.save({"id": "1"})
        assert [
            "id", "note", "n", "i", "day", "at", "mail", "yes", "pick", "box___1", "box___b_2",
            "doc", "all_complete", "twice", "more_complete",
        ] == list((await types.export())[0])  # fmt: skip

    async def test_raw_values_are_texts(self, types: Api) -> None:
        """
        Numbers are text and blanks empty text; an unchecked box and an untouched form are 0.
        """
        await types.save({"id": 7, "n": 1.5, "yes": True, "box___1": 1, "note": None})
        (row,) = await types.export()
        assert ("7", "1.5", "1", "") == (row["id"], row["n"], row["yes"], row["note"])
        assert ("1", "0", "0") == (row["box___1"], row["box___b_2"], row["all_complete"])

    async def test_labels(self, types: Api) -> None:
        """Labels replace codes; boxes have Checked and Unchecked, or the choice."""
        await types.save({"id": "1", "yes": "0", "pick": "1", "box___1": "1", "all_complete": "2"})
        (row,) = await types.export(rawOrLabel="label")
        assert ("No", "One, or so", "Complete") == (row["yes"], row["pick"], row["all_complete"])
        assert ("Checked", "Unchecked") == (row["box___1"], row["box___b_2"])
        (row,) = await types.export(rawOrLabel="label", exportCheckboxLabel="true")
        assert ("One", "") == (row["box___1"], row["box___b_2"])

    async def test_label_headers_are_for_csv(self, types: Api) -> None:
        """Label headers change csv; JSON keeps the names."""
        await types.save({"id": "1"})
        text = await types.text(
            "record", format="csv", rawOrLabelHeaders="label", fields=["id", "box", "all_complete"]
        )
        header = '"Name, please","Box (choice=One)","Box (choice=Two)",Complete?'
        assert header == text.splitlines()[0]
        rows = await types.export(rawOrLabelHeaders="label", fields=["id"])
        assert [{"id": "1"}] == rows

    async def test_csv_quoting(self, types: Api) -> None:
        """Values with a delimiter, quote, line break, tab or space are quoted; others are not."""
        await types.save({"id": "1", "note": 'a "b"\nc'}, {"id": "2", "note": "d;e"})
        text = await types.text("record", format="csv", fields=["id", "note"])
        assert 'id,note\n1,"a ""b""\nc"\n2,d;e\n' == text
        text = await types.text("record", format="csv", fields=["id", "note"], csvDelimiter=";")
        assert 'id;note\n1;"a ""b""\nc"\n2;"d;e"\n' == text
        text = await types.text("record", format="csv", fields=["id", "n"], csvDelimiter="tab")
        assert "id\tn\n1\t\n2\t\n" == text

    async def test_xml(self, types: Api) -> None:
        """XML contains the values as character data, whatever they contain."""
        await types.save({"id": "1", "note": "<&]]>"})
        text = await types.text("record", format="xml", fields=["id", "note"])
        assert (
            '<?xml version="1.0" encoding="UTF-8" ?><records><item><id><![CDATA[1]]></id>'
            "<note><![CDATA[<&]]]]><![CDATA[>]]></note></item></records>"
        ) == text

    async def test_nothing_found(self, types: Api) -> None:
        """No records: an empty list, a header, an empty root."""
        assert [] == await types.export()
        assert "id\n" == await types.text("record", format="csv", fields=["id"])
        assert (await types.text("record")).endswith("<records></records>")

    async def test_record_id_only_when_asked(self, types: Api) -> None:
        """Selecting fields omits the record id, and equal rows stay separate."""
        await types.save({"id": "1", "n": "5"}, {"id": "2", "n": "5"}, {"id": "3"})
        assert [{"n": "5"}, {"n": "5"}, {"n": ""}] == await types.export(fields=["n"])
        assert ["twice", "more_complete"] == list((await types.export(forms=["more"]))[0])

    async def test_natural_order(self, types: Api) -> None:
        """Records are sorted in natural order."""
        await types.save(*({"id": name} for name in ("10", "9", "b10", "b9", "01")))
        names = [row["id"] for row in await types.export(fields=["id"])]
        assert ["01", "9", "10", "b9", "b10"] == names

    async def test_decimal_comma_and_grey_status(self, types: Api) -> None:
        """A comma in numbers and a blank for untouched forms, on request."""
        await types.save({"id": "1", "n": "1.5", "note": "1.5"})
        (row,) = await types.export(decimalCharacter=",", exportBlankForGrayFormStatus="true")
        assert ("1,5", "1.5", "") == (row["n"], row["note"], row["all_complete"])

    async def test_combined_boxes(self, types: Api) -> None:
        """One column per checkbox, on request."""
        await types.save({"id": "1", "box___1": "1", "box___b_2": "1"})
        (row,) = await types.export(fields=["box"], combineCheckboxOptions="true")
        assert {"box": "1,B-2"} == row

    async def test_date_range(self, types: Api) -> None:
        """Only records changed within the range."""
        await types.save({"id": "1"})
        assert [] == await types.export(dateRangeBegin="2199-01-01 00:00:00")
        assert [] == await types.export(dateRangeEnd="2001-01-01 00:00:00")
        assert 1 == len(await types.export(dateRangeBegin="2001-01-01 00:00:00"))

    async def test_unknown_names(self, types: Api) -> None:
        """Unknown fields and forms give 400 and are named; pseudo-fields count as unknown."""
        message = await types.error("record", fields=["x", "id", "y"])
        assert "The following values in the parameter \"fields\" are not valid: 'x', 'y'" == message
        await types.error("record", fields=["redcap_event_name"])
        await types.error("record", forms=["x"])


async def test_abandoned_exports(server: Server) -> None:
    """Clients that disconnect during a long export leak nothing."""
    rows = [{"record_id": f"long{n}", "demandeur_nom": "x" * 9_000} for n in range(400)]
    form = {"token": TOKEN, "content": "record", "format": "json"}
    async with httpx.AsyncClient(timeout=60) as http:
        data = {**form, "data": json.dumps(rows)}
        assert 200 == (await http.post(server.api_url, data=data)).status_code
        for _ in range(50):
            async with http.stream("POST", server.api_url, data=form) as answer:
                assert "content-length" not in answer.headers
                async for _chunk in answer.aiter_raw():
                    break
        whole = await http.post(server.api_url, data=form)
        assert 400 <= len(whole.json())


async def test_full_disk(tmp_path: Path) -> None:
    """
    A full disk refuses what writes, and an export, which needs no space, still works.

    Fails if the line of the export in the history is required.
    """
    with disk(tmp_path / "small", "8m") as folder:
        store = open_store(config(folder))
        async with calls_to(store) as api:
            await api.save({"record_id": "1"})
            filler = fill(folder)
            count = await saved_until_full(api)
            assert count + 1 == len(await api.export(fields=["record_id"]))

            filler.unlink()
            await api.save({"record_id": "2"})
            assert count + 2 == len(await api.export(fields=["record_id"]))
        store.close()


async def saved_until_full(api: Api) -> int:
    """Save records until one is refused; return how many were acknowledged."""
    for number in range(500):
        row = json.dumps([{"record_id": f"x{number}", "email": f"{'x' * 200}@example.org"}])
        answer = await api.post("record", action="import", format="json", data=row)
        if answer.status_code != 200:
            return number
    raise AssertionError("The disk is not full.")
