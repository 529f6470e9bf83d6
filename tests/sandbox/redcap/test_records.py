"""Record import, deletion and renaming; eav, ODM and repeating rows in both directions."""

import json
from typing import Any

import pytest

from sandbox.redcap.store import Store
from tests.sandbox.redcap import studies
from tests.sandbox.redcap.conftest import Api


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

    async def test_case_of_other_letters(self, types: Api) -> None:
        """Only the case of ASCII letters is ignored, in one import as in several."""
        await types.save({"id": "é1", "note": "first"}, {"id": "É1", "note": "second"})

        assert ["first", "second"] == sorted(row["note"] for row in await types.export())

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
    """Half a surrogate pair, which cannot be stored, is refused."""
    answer = await api.post("record", data='[{"record_id": "a\\ud800"}]', format="json")
    assert 400 == answer.status_code
    assert [] == await api.export(fields=["record_id"])


async def test_stored_once(api: Api, store: Store) -> None:
    """Importing the same rows again changes nothing."""
    row = {"record_id": "1", "email": "a@example.org"}
    await api.save(row)
    before = await api.export()
    await api.save(row)
    assert before == await api.export()
