"""A project's design and users: creation, changes, errors, isolation."""

import json
import re
from typing import Any

import pytest

from tests.sandbox.redcap import studies
from tests.sandbox.redcap.conftest import SUPER_TOKEN, TOKEN, Api

FIELDS = [{"field_name": "id", "form_name": "f"}, {"field_name": "a", "form_name": "f"}]


@pytest.fixture
async def club(api: Api) -> Api:
    """The garden club."""
    return await api.create(studies.garden_club())


class TestCreation:
    async def test_from_settings(self, api: Api) -> None:
        """A title and a purpose create a project with one field; the response is its token."""
        made = await api.create(project_notes="n", record_autonumbering_enabled=0)
        about = await made.json("project")
        assert ("Test", "n", 0, 0) == (
            about["project_title"], about["project_notes"],
            about["record_autonumbering_enabled"], about["is_longitudinal"],
        )  # fmt: skip
        assert ["record_id"] == [f["field_name"] for f in await made.json("metadata")]
        assert re.fullmatch(r"[0-9A-F]{32}", made.token)

    @pytest.mark.parametrize(
        "data",
        [
            '[{"purpose": 0}]',
            '[{"project_title": "x"}]',
            '[{"project_title": "x", "purpose": 7}]',
            '[{"project_title": "x", "purpose": 0, "colour": "red"}]',
            "[]",
            "{",
        ],
    )
    async def test_incomplete(self, api: Api, data: str) -> None:
        """Without title or purpose, or with unknown settings, no project is created."""
        await api.error("project", token=SUPER_TOKEN, data=data)

    async def test_bad_documents(self, api: Api) -> None:
        """A document that is not project XML creates no project, not even a partial one."""
        data = '[{"project_title": "x", "purpose": 0}]'
        birds = studies.bird_count()
        visit = 'StudyEventRepeatKey="1" redcap:UniqueEventName="visit_1_arm_1"'
        assert visit in birds
        wrong_event = birds.replace(visit, visit.replace("visit_1_arm_1", "nowhere"))
        for odm in ("<x/>", "<ODM", "<ODM></ODM>", wrong_event):
            await api.error("project", token=SUPER_TOKEN, data=data, odm=odm)
        page = (await api.http.get("/")).text
        assert ">x<" not in page
        made = await api.create(studies.garden_club())
        assert 15 == len(await made.json("metadata"))

    async def test_tokens_are_not_interchangeable(self, api: Api) -> None:
        """A project's token creates no project; the super token opens none."""
        data = '[{"project_title": "x", "purpose": 0}]'
        await api.error("project", token=TOKEN, data=data, status=403)
        await api.error("record", token=SUPER_TOKEN, status=403)

    async def test_documents_in_xml(self, api: Api) -> None:
        """Documents in the XML become answers to file fields."""
        items = [studies.Item("record_id", "ID"), studies.Item("doc", "Doc", "file")]
        odm = (
            f"{studies.HEAD}<Study><GlobalVariables><StudyName>F</StudyName></GlobalVariables>"
            f"<MetaDataVersion>{studies.form_xml('f', 'F', items)}</MetaDataVersion></Study>"
            '<ClinicalData><SubjectData SubjectKey="1"><FormData FormOID="Form.f">'
            '<ItemDataBase64Binary ItemOID="doc" redcap:DocName="a.txt"'
            ' redcap:MimeType="text/plain">aGVsbG8=</ItemDataBase64Binary>'
            "</FormData></SubjectData></ClinicalData></ODM>"
        )
        made = await api.create(odm)
        answer = await made.post("file", action="export", record="1", field="doc")
        assert (b"hello", 'text/plain; name="a.txt";charset=UTF-8') == (
            answer.content, answer.headers["content-type"],
        )  # fmt: skip


class TestDictionary:
    async def test_amarre(self, api: Api) -> None:
        """The default project is the AMARRE study, 11 instruments, 9 of them surveys."""
        names = [i["instrument_name"] for i in await api.json("instrument")]
        assert ["contact", "form", "demandeur_composante", "labo", "encadrant"] == names[:5]
        assert 11 == len(names)
        await api.save({"record_id": "1"})
        for name in names:
            known = await api.post("surveyLink", record="1", instrument=name)
            assert (200 if name not in {"contact", "admin"} else 400) == known.status_code

    async def test_filters(self, api: Api) -> None:
        """Metadata of some fields and forms; unknown ones are rejected."""
        rows = await api.json("metadata", fields=["email"], forms=["reviewer_1"])
        assert ["email", "pertinence_scientifique"] == [r["field_name"] for r in rows][:2]
        await api.error("metadata", forms=["x"])

    async def test_both_headers(self, api: Api) -> None:
        """A dictionary is accepted under the API's names and under those of a dictionary file."""
        made = await api.create()
        text = (
            'Variable / Field Name,Form Name,Field Type,Field Label\nid,f,text,"A, b"\nx,f,calc,\n'
        )
        assert "2" == await made.text("metadata", data=text, format="csv")
        assert "A, b" == (await made.json("metadata"))[0]["field_label"]

    @pytest.mark.parametrize(
        "fields",
        [
            [],
            [{"field_name": "Bad", "form_name": "f"}],
            [{"field_name": "1st", "form_name": "f"}],
            [{"field_name": "a", "form_name": "f"}] * 2,
            [{"field_name": "a", "form_name": ""}],
            [{"field_name": "a", "form_name": "f", "field_type": "hologram"}],
            [{"field_name": "a", "form_name": "f", "field_type": "descriptive"}],
        ],
    )
    async def test_unsound(self, club: Api, fields: list[dict[str, str]]) -> None:
        """An invalid dictionary is rejected and the old one stays."""
        await club.error("metadata", data=json.dumps(fields))
        assert 15 == len(await club.json("metadata"))

    async def test_answers_outlive_it(self, club: Api) -> None:
        """The answers of a removed field return with it."""
        whole = await club.json("metadata")
        await club.json(
            "metadata", data=json.dumps([f for f in whole if f["field_name"] != "soil"])
        )
        assert "soil" not in (await club.export())[0]
        await club.json("metadata", data=json.dumps(whole))
        assert "2" == (await club.export())[0]["soil"]

    async def test_export_names(self, api: Api) -> None:
        """One row per column; files and descriptive texts have none."""
        birds = await api.create(studies.bird_count())
        rows = await birds.json("exportFieldNames", field="seasons")
        assert [("seasons", "1", "seasons___1"), ("seasons", "2", "seasons___2")] == [
            tuple(row.values()) for row in rows
        ]
        names = {row["original_field_name"] for row in await api.json("exportFieldNames")}
        assert names.isdisjoint({"cv_invite", "dossier_link"})
        await api.error("exportFieldNames", field="nope")

    async def test_validations(self, api: Api) -> None:
        """Validation types are exported with their regular expressions."""
        found = {r["validation_type"]: r["regex"] for r in await api.json("fieldValidation")}
        assert {"email", "date_dmy", "integer", "number"} <= set(found)


class TestSettings:
    async def test_change(self, club: Api) -> None:
        """Known settings change, derived ones do not; unknown ones are rejected."""
        data = {"project_title": "Other", "in_production": 1, "custom_record_label": "[a]"}
        assert 2 == await club.json("project_settings", data=json.dumps(data))
        about = await club.json("project")
        assert ("Other", 0, "[a]") == (
            about["project_title"], about["in_production"], about["custom_record_label"],
        )  # fmt: skip
        await club.error("project_settings", data='{"colour": "red"}')
        await club.error("project_settings", data='{"surveys_enabled": "maybe"}')

    async def test_csv_and_xml(self, club: Api) -> None:
        """Project information is one line of csv or one item of xml."""
        text = await club.text("project", format="csv")
        assert 2 == len(text.splitlines())
        assert text.startswith("project_id,project_title,creation_time,")
        assert "<project_title><![CDATA[Test]]></project_title>" in await club.text("project")


class TestGroups:
    async def test_members_see_their_own(self, club: Api) -> None:
        """A member of a group exports, numbers and changes only that group's records."""
        await club.save({"record_id": "2", "redcap_data_access_group": "north_gate"})
        rows = await club.export(exportDataAccessGroups="true")
        assert ["", "north_gate", ""] == [row["redcap_data_access_group"] for row in rows]
        await club.text("dag", action="switch", dag="north_gate")
        assert ["2"] == [row["record_id"] for row in await club.export()]
        assert "1-1" == await club.text("generateNextRecordName")
        await club.save({"record_id": "1-1"})
        assert "1-2" == await club.text("generateNextRecordName")
        assert ["1-1", "2"] == sorted(row["record_id"] for row in await club.export())
        message = await club.error("record", data='[{"record_id": "1", "first_name": "X"}]')
        assert "belongs to another data access group" in message
        await club.error("dag", action="switch", dag="nowhere")

    async def test_labels(self, club: Api) -> None:
        """Label exports contain the group's label; unknown groups are rejected."""
        await club.save({"record_id": "2", "redcap_data_access_group": "north_gate"})
        (row,) = await club.export(records=["2"], rawOrLabel="label", exportDataAccessGroups="true")
        assert "North gate" == row["redcap_data_access_group"]
        await club.error("record", data='[{"record_id": "2", "redcap_data_access_group": "x"}]')


class TestUsers:
    async def test_rights(self, club: Api) -> None:
        """Rights are integers, including those of forms; in csv the latter are pairs."""
        user: dict[str, Any] = {"username": "zoe", "api_export": 1, "forms": {"members": 2}}
        assert 1 == await club.json("user", data=json.dumps([user]))
        found = {u["username"]: u for u in await club.json("user")}["zoe"]
        assert (1, 0, {"members": 2}) == (found["api_export"], found["design"], found["forms"])
        text = await club.text("user", format="csv")
        assert "members:2" in text
        for bad in ({"design": "yes"}, {"forms": {"x": 1}}, {"username": ""}):
            await club.error("user", data=json.dumps([{"username": "zoe", **bad}]))
        await club.error("user", action="delete", users=["nobody"])

    async def test_role_decides(self, club: Api) -> None:
        """A user with a role has the role's rights instead of their own."""
        (role,) = await club.json("userRole")
        assert "0" == role["api_export"]
        (user,) = await club.json("user")
        name = user["username"]
        assignment = [{"username": name, "unique_role_name": role["unique_role_name"]}]
        assert 1 == await club.json("userRoleMapping", data=json.dumps(assignment), action="import")
        message = await club.error("record", status=403)
        assert "You do not have API Export privileges" == message


class TestLog:
    async def test_what_happened(self, club: Api) -> None:
        """Creations, changes, deletions and exports are logged separately, newest first."""
        await club.save({"record_id": "9", "first_name": "A"})
        await club.save({"record_id": "9", "first_name": "B"})
        await club.export()
        kinds = {}
        for kind in ("record_add", "record_edit", "record", "export", "manage", "user"):
            kinds[kind] = len(await club.json("log", logtype=kind))
        assert {
            "record_add": 1, "record_edit": 1, "record": 2, "export": 1, "manage": 1, "user": 0,
        } == kinds  # fmt: skip
        (newest, *_) = await club.json("log", record="9")
        assert "Update record (API) 9" == newest["action"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", newest["timestamp"])
        assert [] == await club.json("log", endTime="2001-01-01 00:00")
        assert 4 == len(await club.json("log", beginTime="2001-01-01 00:00"))


class TestEvents:
    async def test_deleted_events_leave_nothing(self, api: Api) -> None:
        """An event created after another was deleted has no answers."""
        birds = await api.create(studies.bird_count())
        assert 1 == await birds.json("event", action="delete", events=["first_visit_arm_2"])
        new = [{"event_name": "New", "arm_num": "2"}]
        assert 1 == await birds.json("event", data=json.dumps(new))
        mapping = [
            {"arm_num": "2", "unique_event_name": e, "form": "count"}
            for e in ("new_arm_2", "start_arm_2")
        ]
        assert 2 == await birds.json("formEventMapping", data=json.dumps(mapping))
        rows = await birds.export(records=["2"], events=["new_arm_2"])
        assert [] == rows

    async def test_refused(self, api: Api) -> None:
        """The error names unknown arms, events and forms."""
        birds = await api.create(studies.bird_count())
        wrong: list[tuple[str, dict[str, str]]] = [
            ("event", {"event_name": "X", "arm_num": "9"}),
            ("event", {"event_name": "", "arm_num": "1"}),
            ("arm", {"arm_num": "x", "name": "A"}),
            ("arm", {"arm_num": "3", "name": ""}),
            ("formEventMapping", {"unique_event_name": "nope", "form": "count"}),
            ("formEventMapping", {"unique_event_name": "start_arm_1", "form": "nope"}),
            ("repeatingFormsEvents", {"event_name": "nope", "form_name": "count"}),
        ]
        for content, row in wrong:
            await birds.error(content, data=json.dumps([row]))
        assert [1] == [a["arm_num"] for a in await birds.json("arm", arms=["1"])]
        await birds.error("arm", action="delete", arms=["7"])
        await birds.error("record", data='[{"study_id": "1"}]')
        await birds.error("surveyLink", record="1", instrument="contact")
        link: dict[str, Any] = {"record": "1", "instrument": "contact", "event": "visit_1_arm_1"}
        assert "is not designated" in await birds.error("surveyLink", **link)


class TestPdf:
    async def test_pdf(self, api: Api) -> None:
        """A PDF of one record, of all records, or blank; an error is not a PDF."""
        await api.save({"record_id": "1", "demandeur_nom": "Œuvre – 漢字", "demandeur_statut": "2"})
        for params in ({}, {"record": "1"}, {"record": "1", "instrument": "form"},
                       {"allRecords": "true", "compactDisplay": "true"}):  # fmt: skip
            answer = await api.post("pdf", **params)
            assert (200, "application/pdf") == (
                answer.status_code, answer.headers["content-type"],
            )  # fmt: skip
            assert answer.content.startswith(b"%PDF-")
        await api.error("pdf", record="2")
        await api.error("pdf", instrument="nope")
