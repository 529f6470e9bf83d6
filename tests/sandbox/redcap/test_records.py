"""Record export and import."""

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.redcap.filter_logic.prefilter import Required
from sandbox.redcap.records import storage
from sandbox.redcap.store import MAX_INDEXES, Store
from tests.sandbox.redcap import studies
from tests.sandbox.redcap.conftest import TOKEN, Api, Server

TYPES = [
    {"field_name": "id", "form_name": "all", "field_label": "Name, please"},
    {"field_name": "note", "form_name": "all", "field_type": "notes"},
    {"field_name": "n", "form_name": "all",
     "text_validation_type_or_show_slider_number": "number"},
    {"field_name": "i", "form_name": "all",
     "text_validation_type_or_show_slider_number": "integer"},
    {"field_name": "day", "form_name": "all",
     "text_validation_type_or_show_slider_number": "date_dmy"},
    {"field_name": "at", "form_name": "all", "text_validation_type_or_show_slider_number": "time"},
    {"field_name": "mail", "form_name": "all",
     "text_validation_type_or_show_slider_number": "email"},
    {"field_name": "yes", "form_name": "all", "field_type": "yesno", "field_label": "Yes?"},
    {"field_name": "pick", "form_name": "all", "field_type": "dropdown",
     "select_choices_or_calculations": "1, One, or so | b-2, Two"},
    {"field_name": "box", "form_name": "all", "field_type": "checkbox", "field_label": "Box",
     "select_choices_or_calculations": "1, One | B-2, Two"},
    {"field_name": "doc", "form_name": "all", "field_type": "file"},
    {"field_name": "text", "form_name": "all", "field_type": "descriptive"},
    {"field_name": "twice", "form_name": "more", "field_type": "calc",
     "select_choices_or_calculations": "[n] * 2"},
]  # fmt: skip


@pytest.fixture
async def types(api: Api) -> Api:
    """A project with one field of every type."""
    made = await api.create(surveys_enabled=1)
    assert 13 == await made.json("metadata", data=json.dumps(TYPES))
    return made


class TestImportLikePhp:
    async def test_numbers(self, types: Api) -> None:
        """A JSON float is the code or the record name that PHP makes of it as text (F1)."""
        await types.save({"id": 9, "yes": 1.0})
        await types.save({"id": 9.0, "pick": 1.0})

        (row,) = await types.export()
        assert ("9", "1", "1") == (row["id"], row["yes"], row["pick"])

    async def test_case_of_names(self, types: Api) -> None:
        """Record names that differ only by case are one record, spelled as first imported (F5)."""
        await types.save({"id": "R1", "note": "a"}, {"id": "r1", "n": "1"})
        await types.save({"id": "r1", "i": "2"})

        (row,) = await types.export(records=["r1"])
        assert ("R1", "a", "1", "2") == (row["id"], row["note"], row["n"], row["i"])
        assert (await types.post("pdf", record="r1")).content.startswith(b"%PDF-")

    async def test_missing_data_codes(self, types: Api) -> None:
        """A missing data code is valid for any field, has a label and is known to logic (F5)."""
        codes = json.dumps({"missing_data_codes": "-99, Unknown | NA, Not asked"})
        await types.text("project_settings", data=codes, format="json")
        await types.save({"id": "1", "i": "NA", "day": "-99", "pick": "NA"}, {"id": "2", "i": "5"})

        (row,) = await types.export(records=["1"], rawOrLabel="label")
        assert ("Not asked", "Unknown", "Not asked") == (row["i"], row["day"], row["pick"])
        for logic, names in (
            ("isblankormissingcode([pick])", ["1", "2"]),
            ("isblanknotmissingcode([day])", ["2"]),
        ):
            found = await types.export(fields=["id"], filterLogic=logic)
            assert names == [one["id"] for one in found], logic
        with pytest.raises(AssertionError):
            await types.save({"id": "1", "i": "other"})


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


class TestEav:
    async def test_rows(self, types: Api) -> None:
        """One row per stored answer and per ticked choice, the record id among them."""
        await types.save({"id": "1", "n": "2", "box___1": "1", "box___b_2": "1", "note": ""})
        pairs = [(r["field_name"], r["value"]) for r in await types.export(type="eav")]
        assert [("id", "1"), ("n", "2"), ("box", "1"), ("box", "B-2"), ("twice", "4")] == pairs
        rows = await types.export(type="eav", rawOrLabel="label", fields=["box"])
        assert ["One", "Two"] == [row["value"] for row in rows]

    async def test_import(self, types: Api) -> None:
        """Eav rows of one record are one import; a box is ``field___code`` with 0 or 1."""
        rows = [
            {"record": "1", "field_name": "n", "value": "3"},
            {"record": "1", "field_name": "box___b_2", "value": "1"},
        ]
        assert {"count": 1} == await types.save(*rows, type="eav")
        (row,) = await types.export(fields=["n", "box"])
        assert {"n": "3", "box___1": "0", "box___b_2": "1"} == row


class TestImport:
    async def test_answers(self, types: Api) -> None:
        """Count counts records, not rows; a lone object imports nothing."""
        rows = [{"id": "1", "n": "1"}, {"id": "1", "i": "2"}, {"id": "2"}]
        assert {"count": 2} == await types.save(*rows)
        assert ["1", "2"] == await types.save(*rows, returnContent="ids")
        assert {} == await types.save(*rows, returnContent="nothing")
        lone = await types.json("record", action="import", data='{"id": "3"}')
        assert {"count": 0} == lone
        answer = await types.text("record", data="id\n3\n4", format="csv", returnContent="ids")
        assert "id\n3\n4\n" == answer
        answer = await types.text(
            "record", data="<records><item><id>5</id></item></records>", format="xml"
        )
        assert '<?xml version="1.0" encoding="UTF-8" ?><count>1</count>' == answer

    async def test_background(self, types: Api) -> None:
        """A background import responds with success, whatever else was requested."""
        got = await types.save({"id": "1"}, backgroundProcess="true", returnContent="ids")
        assert {"success": True} == got

    async def test_all_or_nothing(self, types: Api) -> None:
        """One invalid value among many rows: nothing is stored and every error is named."""
        rows = [{"id": "1", "n": "1"}, {"id": "2", "n": "x", "mail": "no"}]
        message = await types.error("record", data=json.dumps(rows))
        reason = "could not be validated because it does not follow the expected format"
        first, second = message.split("\n")
        assert first.startswith('"2","n","x","')
        assert second.startswith('"2","mail","no","')
        assert reason in first
        assert [] == await types.export()

    @pytest.mark.parametrize(
        ("field", "good", "bad"),
        [
            ("n", "-1.5", "1,5"),
            ("i", "+3", "3.0"),
            ("day", "2024-02-29", "2023-02-29"),
            ("at", "23:59", "24:00"),
            ("mail", "a.b+c@example.org", "a@b"),
            ("yes", "1", "Yes"),
            ("pick", "b-2", "Two"),
            ("box___1", "0", "2"),
            ("all_complete", "2", "3"),
        ],
    )
    async def test_formats(self, types: Api, field: str, good: str, bad: str) -> None:
        """Every format accepts some values and rejects others; labels are not codes."""
        await types.save({"id": "1", field: good})
        assert good == (await types.export())[0][field]
        await types.error("record", data=json.dumps([{"id": "1", field: bad}]))

    async def test_dates_by_order(self, types: Api) -> None:
        """dateFormat sets the order of dates on import; they are stored year first."""
        await types.save({"id": "1", "day": "31/12/2026"}, dateFormat="DMY")
        assert [{"day": "2026-12-31"}] == await types.export(fields=["day"])
        await types.save({"id": "1", "day": "12-30-2026"}, dateFormat="MDY")
        assert [{"day": "2026-12-30"}] == await types.export(fields=["day"])
        await types.error("record", data='[{"id": "1", "day": "31/12/2026"}]')

    async def test_overwriting(self, types: Api) -> None:
        """Blanks are ignored, or erase on request; fields not imported always stay."""
        await types.save({"id": "1", "n": "1", "i": "2", "box___1": "1"})
        await types.save({"id": "1", "n": "", "box___1": ""})
        assert "1" == (await types.export())[0]["n"]
        await types.save({"id": "1", "n": "", "box___1": ""}, overwriteBehavior="overwrite")
        (row,) = await types.export()
        assert ("", "2", "0") == (row["n"], row["i"], row["box___1"])

    async def test_extras(self, types: Api) -> None:
        """
        Calculated fields and timestamps are accepted and ignored; unknown columns are rejected.
        """
        await types.save({"id": "1", "n": "4", "twice": "99", "all_timestamp": "2020-01-01"})
        assert "8" == (await types.export())[0]["twice"]
        message = await types.error("record", data='[{"id": "1", "a": "1", "b": "2"}]')
        assert (
            "The following fields were not found in the project as real data fields: a, b"
        ) == message

    async def test_names(self, types: Api) -> None:
        """Names are trimmed, have at most 100 characters and are never blank."""
        await types.save({"id": "  x y  "})
        assert ["x y"] == [row["id"] for row in await types.export(fields=["id"])]
        for name in ("", "a" * 101, "a\x00b"):
            await types.error("record", data=json.dumps([{"id": name}]))

    async def test_odd_names_are_data(self, types: Api) -> None:
        """Quotes, brackets and percent signs in names are safe."""
        names = ["a'b", 'a"b', "[x]", "%00", "'; drop table record; --", "é"]
        await types.save(*({"id": name} for name in names))
        for name in names:
            assert [{"id": name}] == await types.export(fields=["id"], records=[name])

    async def test_auto_numbers(self, types: Api) -> None:
        """Given names only group rows; the new ones follow the highest number."""
        await types.save({"id": "41"}, {"id": "x9"})
        rows = [{"id": "a", "n": "1"}, {"id": "b"}, {"id": "a", "i": "2"}]
        got = await types.save(*rows, forceAutoNumber="true", returnContent="auto_ids")
        assert ["42,a", "43,b"] == got
        assert "44" == await types.text("generateNextRecordName")
        await types.error("record", data='[{"id": "1"}]', returnContent="auto_ids")

    @pytest.mark.parametrize(
        ("shape", "data"),
        [
            ("json", "{"),
            ("json", "[1]"),
            ("json", "[" * 100_000),
            ("json", '[{"\\ud800": "1"}]'),
            ("csv", 'id,n\n"1,2'),
            ("csv", "id,n\n1"),
            ("xml", "<records><item>"),
            ("xml", '<!DOCTYPE x [<!ENTITY e "x">]><records>&e;</records>'),
        ],
    )
    async def test_broken_data(self, types: Api, shape: str, data: str) -> None:
        """Data in another format gives 400 with a sentence."""
        await types.error("record", action="import", data=data, format=shape)


class TestDeleteAndRename:
    async def test_delete(self, types: Api) -> None:
        """
        An array of names is required; an unknown name cancels the deletion; the response is a
        number.
        """
        await types.save({"id": "1"}, {"id": "2"})
        with_right = {"username": "sandbox", "record_delete": 1}
        assert 1 == await types.json("user", data=json.dumps([with_right]))
        message = await types.error("record", action="delete", records="1")
        assert "It must be passed as an array" in message
        message = await types.error("record", action="delete", records=["1", "9"])
        assert message.endswith("The following records do not exist: 9")
        assert 2 == len(await types.export())
        assert 2 == await types.json("record", action="delete", records=["1", "2"])
        assert [] == await types.export()

    async def test_delete_form(self, api: Api) -> None:
        """Deleting an instrument of a record keeps its other answers."""
        await api.save({"record_id": "1", "email": "a@example.org", "demandeur_nom": "A"})
        assert 1 == await api.json("record", action="delete", records=["1"], instrument="form")
        (row,) = await api.export(fields=["email", "demandeur_nom"])
        assert {"email": "a@example.org", "demandeur_nom": ""} == row

    async def test_rename(self, api: Api) -> None:
        """A renamed record keeps its answers and its links."""
        await api.save({"record_id": "1", "email": "a@example.org"}, {"record_id": "2"})
        link = await api.link("1", "form")
        params: dict[str, Any] = {"action": "rename", "record": "1"}
        assert 1 == await api.json("record", new_record_name="one", **params)
        assert link == await api.link("one", "form")
        assert 200 == (await api.http.get(link)).status_code
        await api.error("record", new_record_name="x", **params)
        await api.error("record", action="rename", record="one", new_record_name="2")

    async def test_delete_arm(self, api: Api) -> None:
        """
        Deleting an arm of a record keeps its other arms; without any row the record is deleted.
        """
        birds = await api.create(studies.bird_count())
        right = {"username": "sandbox", "record_delete": 1}
        await birds.json("user", data=json.dumps([right]))
        await birds.save({"study_id": "1", "redcap_event_name": "start_arm_2"})
        params: dict[str, Any] = {"action": "delete", "records": ["1"]}
        assert 1 == await birds.json("record", arm="1", **params)
        rows = await birds.export(records=["1"])
        assert ["start_arm_2"] == [row["redcap_event_name"] for row in rows]
        assert 1 == await birds.json("record", arm="2", **params)
        assert "do not exist: 1" in await birds.error("record", **params)
        await birds.error("record", arm="9", **{**params, "records": ["2"]})


class TestOdm:
    async def test_round_trip(self, api: Api) -> None:
        """Records exported as ODM can be imported again, including repeated rows."""
        birds = await api.create(studies.bird_count())
        row = {
            "study_id": "1", "redcap_event_name": "visit_1_arm_1",
            "redcap_repeat_instrument": "rings", "redcap_repeat_instance": 2, "ring": "<&\">",
        }  # fmt: skip
        await birds.save(row)
        before = await birds.export()
        document = await birds.text("record", format="odm")
        copy = await api.create(studies.bird_count())
        await copy.text("record", action="import", format="odm", data=document)
        assert before == await copy.export()

    async def test_not_odm(self, api: Api) -> None:
        """Other documents are rejected with a sentence."""
        message = await api.error("record", action="import", format="odm", data="<html/>")
        assert "is not a CDISC ODM document" in message


class TestRepeating:
    async def test_repeating_columns(self, api: Api) -> None:
        """An instance number is an integer, blank where nothing repeats."""
        birds = await api.create(studies.bird_count())
        base: dict[str, Any] = {"study_id": "1", "redcap_event_name": "visit_1_arm_1"}
        await birds.save({**base, "redcap_repeat_instrument": "rings", "ring": "A"})
        rows = await birds.export(records=["1"])
        assert ["", "", 1] == [row["redcap_repeat_instance"] for row in rows]
        assert "5" == rows[1]["gulls"]
        assert ("", "A") == (rows[2]["gulls"], rows[2]["ring"])


class TestRepeatingEvents:
    async def test_rows(self, api: Api) -> None:
        """A repeating event has numbered rows without an instrument, in flat and eav."""
        odm = studies.bird_count().replace(
            "<redcap:RepeatingInstruments>",
            '<redcap:RepeatingEvent redcap:UniqueEventName="look_1_arm_1"/>'
            "<redcap:RepeatingInstruments>",
        )
        birds = await api.create(odm)
        base = {"study_id": "5", "redcap_event_name": "look_1_arm_1"}
        await birds.save(
            {**base, "wind": "1"}, {**base, "wind": "2", "redcap_repeat_instance": "3"}
        )
        text = await birds.text(
            "record", format="csv", records=["5"], fields=["study_id", "wind", "seasons"],
            rawOrLabel="label",
        )  # fmt: skip
        assert ['5,"Look 1",,1,,,Calm', '5,"Look 1",,3,,,Gale'] == text.splitlines()[1:]
        rows = await birds.export(type="eav", records=["5"], fields=["wind"])
        assert [("look_1_arm_1", "", 1, "1"), ("look_1_arm_1", "", 3, "2")] == [
            (
                row["redcap_event_name"], row["redcap_repeat_instrument"],
                row["redcap_repeat_instance"], row["value"],
            )
            for row in rows
        ]  # fmt: skip
        logic = "[look_1_arm_1][wind][last-instance] = '2' and [look_1_arm_1][wind] = '1'"
        (first,) = [r for r in await birds.export(filterLogic=logic) if r["wind"] == "1"]
        assert 1 == first["redcap_repeat_instance"]

    async def test_survey_of_an_instance(self, api: Api) -> None:
        """Each instance has its own survey link, and the answers go to its row."""
        odm = studies.bird_count().replace(
            "<redcap:SurveysGroup>",
            '<redcap:SurveysGroup><redcap:Surveys form_name="rings" title="Ring"/>',
        )
        birds = await api.create(odm)
        links = [
            await birds.link("1", "rings", event="visit_1_arm_1", repeat_instance=str(number))
            for number in (1, 2)
        ]
        assert links[0] != links[1]
        page = await api.http.post(links[1], data={"ring": "K7"})
        assert 200 == page.status_code
        rows = await birds.export(records=["1"], fields=["study_id"], forms=["rings"])
        rows = [row for row in rows if row["redcap_repeat_instrument"]]
        assert [(2, "K7", "2")] == [
            (row["redcap_repeat_instance"], row["ring"], row["rings_complete"]) for row in rows
        ]
        await birds.error(
            "surveyLink", record="1", instrument="rings", event="visit_1_arm_1",
            repeat_instance="0",
        )  # fmt: skip


async def test_half_characters(api: Api) -> None:
    """Half a surrogate pair, which cannot be stored, is replaced."""
    assert {"count": 1} == await api.json("record", data='[{"record_id": "a\\ud800"}]')
    assert [{"record_id": "a?"}] == await api.export(fields=["record_id"])


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


async def test_stored_once(api: Api, store: Store) -> None:
    """Importing the same rows again changes nothing."""
    row = {"record_id": "1", "email": "a@example.org"}
    await api.save(row)
    before = await api.export()
    await api.save(row)
    assert before == await api.export()
