"""PyCap, an independent client, works with the sandbox as with REDCap."""

import io
from typing import Any

import httpx
import pandas as pd  # type: ignore[import-untyped]  # it ships no types
import pytest
from redcap.project import Project
from redcap.request import RedcapError

from tests.sandbox.redcap import studies
from tests.sandbox.redcap.conftest import SUPER_TOKEN, TOKEN, Server


def create(server: Server, odm: str) -> Any:
    """A project created from XML, with the rights that its creator still lacks."""
    item = "<item><project_title>Test</project_title><purpose>0</purpose></item>"
    form = {"token": SUPER_TOKEN, "content": "project", "format": "xml", "data": item, "odm": odm}
    token = httpx.post(server.api_url, data=form).text[-32:]
    project = Project(server.api_url, token)
    owner = project.export_users()[0]
    owner |= dict.fromkeys(["record_delete", "record_rename", "lock_records"], 1)
    assert 1 == project.import_users([owner])
    return project


@pytest.fixture(scope="module")
def classic(server: Server) -> Any:
    """The garden club."""
    return create(server, studies.garden_club())


@pytest.fixture(scope="module")
def long(server: Server) -> Any:
    """The bird count."""
    return create(server, studies.bird_count())


class TestClassicExport:
    def test_design_is_read(self, classic: Any) -> None:
        """Title, record id, forms and field names are those of the XML."""
        assert "record_id" == classic.def_field
        assert not classic.is_longitudinal
        assert 15 == len(classic.metadata)
        assert ["members"] == list(classic.forms)
        assert "Test" == classic.export_project_info()["project_title"]
        assert 0 == classic.export_project_info()["purpose"]
        assert str(classic.export_version()) >= "12.0.1"

    def test_types_of_old_exports(self, classic: Any) -> None:
        """textarea and select become notes and dropdown; choices and limits become text."""
        fields = {field["field_name"]: field for field in classic.export_metadata()}
        assert "notes" == fields["address"]["field_type"]
        assert "dropdown" == fields["light"]["field_type"]
        assert (
            "0, Sun | 1, Half shade | 2, Shade"
            == (fields["light"]["select_choices_or_calculations"])
        )
        assert "1" == fields["length"]["text_validation_min"]
        assert "Contact" == fields["first_name"]["section_header"]

    def test_records(self, classic: Any) -> None:
        """Three members, whole or by field; the record id is always first."""
        assert 3 == len(classic.export_records())
        names = classic.export_records(fields=["first_name"])
        assert {"record_id": "1", "first_name": "Ada"} == names[0]
        assert ["2"] == [r["record_id"] for r in classic.export_records(records=["2"])]

    def test_frames(self, classic: Any) -> None:
        """A DataFrame is indexed by record id and has 30 stored values, none of them calculated."""
        assert 3 == len(classic.export_records(format_type="df"))
        assert 30 == len(classic.export_records(format_type="df", record_type="eav"))

    def test_filter(self, classic: Any) -> None:
        """filterLogic selects records."""
        found = classic.export_records(filter_logic='[first_name] = "Bo" and [length] > 2')
        assert ["2"] == [row["record_id"] for row in found]

    def test_labels(self, classic: Any) -> None:
        """Labels replace codes, and headers in csv."""
        row = classic.export_records(raw_or_label="label", records=["1"])[0]
        assert ("Loam", "Complete") == (row["soil"], row["members_complete"])
        text = classic.export_records(format_type="csv", raw_or_label_headers="label")
        assert text.startswith('"Study ID","First name"')


class TestClassicImport:
    def test_counts_and_ids(self, classic: Any) -> None:
        """Count, ids, nothing; deletion returns how many."""
        rows = [{"record_id": number} for number in (4, 5, 6)]
        assert {"count": 3} == classic.import_records(rows)
        assert ["4", "5", "6"] == classic.import_records(rows, return_content="ids")
        assert [{}] == classic.import_records(rows, return_content="nothing")
        assert 3 == classic.delete_records([4, 5, 6])

    @pytest.mark.parametrize(
        ("shape", "counted"),
        [("csv", "3"), ("xml", '<?xml version="1.0" encoding="UTF-8" ?><count>3</count>')],
    )
    def test_other_shapes(self, classic: Any, shape: str, counted: str) -> None:
        """Exact counts in csv and xml."""
        frame = pd.read_csv(io.StringIO("record_id\n4\n5\n6"))
        got = classic.import_records(frame, import_format="df", return_format_type=shape)
        assert counted == got
        assert "3" == classic.delete_records(["4", "5", "6"], return_format_type=shape)

    def test_frame_comes_back(self, classic: Any) -> None:
        """An exported DataFrame with blanks and calculated columns can be imported."""
        frame = classic.export_records(format_type="df", df_kwargs={"sep": ","}).convert_dtypes()
        assert {"count": 3} == classic.import_records(frame, import_format="df")

    def test_auto_numbers(self, classic: Any) -> None:
        """Forced numbers follow the highest; the response pairs new and given names."""
        got = classic.import_records(
            [{"record_id": "x", "first_name": "Dee"}],
            force_auto_number=True,
            return_content="auto_ids",
        )
        assert ["4,x"] == got
        assert "5" == classic.generate_next_record_name()
        assert 1 == classic.delete_records(["4"])

    def test_faults(self, classic: Any) -> None:
        """Unknown columns and invalid values raise, and nothing is stored."""
        with pytest.raises(RedcapError, match="were not found in the project"):
            classic.import_records([{"record_id": "9", "nonsense": "1"}])
        with pytest.raises(RedcapError, match="valid category"):
            classic.import_records([{"record_id": "9"}, {"record_id": "10", "soil": "Loam"}])
        assert 3 == len(classic.export_records())


class TestClassicDictionary:
    def test_names(self, classic: Any) -> None:
        """15 fields and a status field have 16 export names."""
        assert 16 == len(classic.export_field_names())
        assert 1 == len(classic.export_field_names(field="first_name"))
        columns = classic.export_field_names(format_type="df").columns
        assert ["choice_value", "export_field_name"] == list(columns)
        assert 1 == len(classic.export_instruments())

    def test_round_trips(self, classic: Any) -> None:
        """The dictionary is replaced as a whole, by JSON, csv and DataFrame."""
        whole = classic.export_metadata()
        assert 14 == classic.import_metadata(whole[:14])
        assert 15 == classic.import_metadata(whole)
        text = classic.export_metadata("csv")
        assert 15 == classic.import_metadata(text, import_format="csv")
        frame = classic.export_metadata(
            format_type="df",
            df_kwargs={
                "index_col": "field_name",
                "dtype": {
                    "text_validation_min": pd.Int64Dtype(),
                    "text_validation_max": pd.Int64Dtype(),
                },
            },
        )
        assert 15 == classic.import_metadata(frame, import_format="df")
        assert whole == classic.export_metadata()


class TestClassicRest:
    def test_surveys(self, classic: Any, server: Server) -> None:
        """Links, codes and participants."""
        link = classic.export_survey_link(instrument="members", record="1")
        assert link.startswith(f"{server.url}/surveys/?s=")
        assert link == classic.export_survey_link(instrument="members", record="1")
        queue = classic.export_survey_queue_link(record="1")
        assert queue.startswith(f"{server.url}/surveys/?sq=")
        assert 9 == len(classic.export_survey_access_code(record="1", instrument="members"))
        assert 8 == len(classic.export_survey_return_code(record="1", instrument="members"))
        people = classic.export_survey_participant_list(instrument="members", format_type="df")
        assert 3 == len(people)
        assert "email" in people.columns

    def test_users(self, classic: Any) -> None:
        """One user with API rights; others are created and deleted, with roles and groups."""
        users = classic.export_users()
        assert [1] == [user["api_export"] for user in users]
        assert "1" == classic.import_users([{"username": "zoe"}], return_format_type="csv")
        role = classic.export_user_roles()[0]
        assert "Treasurer" == role["role_label"]
        name = role["unique_role_name"]
        assert 1 == classic.import_user_role_assignment(
            [{"username": "zoe", "unique_role_name": name}]
        )
        assigned = {r["username"]: r for r in classic.export_user_role_assignment()}
        assert name == assigned["zoe"]["unique_role_name"]
        assert 1 == classic.import_user_roles([{"role_label": "Guest"}])
        guest = classic.export_user_roles()[-1]["unique_role_name"]
        assert 1 == classic.delete_user_roles([guest])
        assert 1 == classic.delete_users(["zoe"])
        assert 1 == len(classic.export_users(format_type="df"))

    def test_groups(self, classic: Any) -> None:
        """Groups are created and deleted; their names derive from their labels."""
        assert 1 == len(classic.export_dags(format_type="df"))
        new = [{"data_access_group_name": "South Gate", "unique_group_name": ""}]
        assert "1" == classic.import_dags(new, return_format_type="csv")
        assert 1 == classic.delete_dags(["south_gate"])
        mapping = classic.export_user_dag_assignment()
        assert 1 == len(mapping)
        assert "1" == classic.import_user_dag_assignment(mapping, return_format_type="csv")

    def test_log(self, classic: Any) -> None:
        """The oldest change to the design is the creation of the project."""
        oldest = classic.export_logging(log_type="manage").pop()
        assert "manage/design" in oldest["action"].lower()
        assert [] == classic.export_logging(user="nobody")

    def test_repository(self, classic: Any) -> None:
        """Folders and files of the repository."""
        (folder,) = classic.create_folder_in_repository("Plans")
        assert folder["folder_id"] > 0
        before = len(classic.export_file_repository())
        content = io.BytesIO(b"hello")
        assert [{}] == classic.import_file_into_repository("plan.txt", content)
        listed = classic.export_file_repository()
        assert before + 1 == len(listed)
        doc_id = next(item["doc_id"] for item in listed if "plan.txt" == item["name"])
        body, about = classic.export_file_from_repository(doc_id)
        assert (b"hello", "plan.txt") == (body, about["name"])
        assert [{}] == classic.delete_file_from_repository(doc_id)
        assert before == len(classic.export_file_repository())
        assert [] == classic.export_file_repository(folder_id=folder["folder_id"])
        with pytest.raises(RedcapError, match="folder_id=99"):
            classic.export_file_repository(folder_id=99)

    def test_pdf(self, classic: Any) -> None:
        """A PDF of the blank forms and of a record."""
        assert classic.export_pdf()[0].startswith(b"%PDF-")
        assert classic.export_pdf(record="1", instrument="members")[0].startswith(b"%PDF-")

    def test_files(self, server: Server) -> None:
        """A file is uploaded to a record, downloaded unchanged and deleted."""
        amarre = Project(server.api_url, TOKEN)
        amarre.import_records([{"record_id": "file"}])
        content = bytes(range(256))
        amarre.import_file("file", "cv_invite", "cv.pdf", io.BytesIO(content))
        body, about = amarre.export_file("file", "cv_invite")
        assert (content, "cv.pdf") == (body, about["name"])
        amarre.delete_file("file", "cv_invite")
        with pytest.raises(RedcapError, match="no file to download"):
            amarre.export_file("file", "cv_invite")

    def test_classic_refusals(self, classic: Any) -> None:
        """Arms, events and mappings belong to longitudinal projects."""
        for ask in (
            classic.export_arms,
            classic.export_events,
            classic.export_instrument_event_mappings,
        ):
            with pytest.raises(RedcapError, match="classic projects"):
                ask()
        with pytest.raises(RedcapError, match="does not contain any repeating"):
            classic.export_repeating_instruments_events()


class TestLongitudinal:
    def test_design_is_read(self, long: Any) -> None:
        """9 forms, 2 arms, 16 events under REDCap's names, and their mappings."""
        assert long.is_longitudinal
        assert 9 == len(long.export_instruments())
        assert [1, 2] == [arm["arm_num"] for arm in long.export_arms()]
        assert ["Coast", "Estuary"] == [arm["name"] for arm in long.export_arms()]
        assert studies.UNIQUE == [event["unique_event_name"] for event in long.export_events()]
        assert studies.MAPPINGS == len(long.export_instrument_event_mappings())

    def test_records(self, long: Any) -> None:
        """One row per record and event; forms and fields follow the project's order."""
        rows = long.export_records()
        assert [
            ("1", "start_arm_1"), ("1", "visit_1_arm_1"),
            ("2", "start_arm_2"), ("2", "first_visit_arm_2"),
        ] == [(row["study_id"], row["redcap_event_name"]) for row in rows]  # fmt: skip
        assert ("1", "0") == (rows[0]["seasons___1"], rows[0]["seasons___2"])
        assert "" == rows[1]["seasons___1"]
        frame = long.export_records(forms=["observer", "site"], format_type="df")
        status = [column for column in frame.columns if column.endswith("_complete")]
        assert ["observer_complete", "site_complete"] == status
        frame = long.export_records(forms=["site"], fields=["study_comments"], format_type="df")
        assert ["study_id", "redcap_event_name"] == list(frame.index.names)
        assert ["site_complete"] == [c for c in frame.columns if c.endswith("_complete")]
        assert "Study ID" in long.export_records(format_type="csv", raw_or_label_headers="label")

    def test_participants(self, long: Any) -> None:
        """A record with a row at the event can complete its survey."""
        people = long.export_survey_participant_list(instrument="contact", event="start_arm_1")
        assert ["1"] == [person["record"] for person in people]

    def test_partial_delete(self, long: Any) -> None:
        """Deleting one event of a record keeps the others."""
        added = [
            {"study_id": "7", "redcap_event_name": e} for e in ("start_arm_1", "visit_1_arm_1")
        ]
        assert {"count": 1} == long.import_records(added)
        assert 1 == long.delete_records(["7"], event="visit_1_arm_1")
        rows = long.export_records(records=["7"])
        assert ["start_arm_1"] == [row["redcap_event_name"] for row in rows]
        assert 1 == long.delete_records(["7"])

    def test_wrong_event(self, long: Any) -> None:
        """A field cannot be imported into an event without its form."""
        row = {"study_id": "1", "redcap_event_name": "start_arm_1", "gulls": "3"}
        with pytest.raises(RedcapError, match="not designated for the event named"):
            long.import_records([row])

    def test_repeating_round_trips(self, long: Any) -> None:
        """Repeating events and forms, exported and imported in every format."""
        for shape in ("xml", "json", "csv", "df"):
            found = long.export_repeating_instruments_events(format_type=shape)
            got = long.import_repeating_instruments_events(found, import_format=shape)
            assert 1 == got
        (only,) = long.export_repeating_instruments_events()
        assert ("visit_1_arm_1", "rings") == (only["event_name"], only["form_name"])

    def test_repeating_rows(self, long: Any) -> None:
        """Instances are rows with their own number; 'new' is assigned the next one."""
        base = {
            "study_id": "8",
            "redcap_event_name": "visit_1_arm_1",
            "redcap_repeat_instrument": "rings",
        }
        rows = [{**base, "redcap_repeat_instance": n, "ring": f"R{n}"} for n in (1, "new")]
        assert {"count": 1} == long.import_records(rows)
        found = long.export_records(records=["8"], forms=["rings"])
        assert [(1, "R1"), (2, "Rnew")] == [
            (row["redcap_repeat_instance"], row["ring"]) for row in found
        ]
        assert 1 == long.delete_records(["8"])

    def test_arms_events_and_mappings(self, long: Any) -> None:
        """
        Arms and events are created, renamed and deleted; overriding arms deletes everything in
        them.
        """
        assert 1 == long.import_arms([{"arm_num": 3, "name": "Island"}])
        assert 2 == len(long.export_arms())
        assert 1 == long.import_events([{"event_name": "new_event", "arm_num": "3"}])
        assert [1, 2, 3] == [arm["arm_num"] for arm in long.export_arms()]
        assert "new_event_arm_3" == long.export_events()[-1]["unique_event_name"]
        assert 1 == long.import_arms([{"arm_num": 1, "name": "Shore"}])
        assert "Shore" == long.export_arms()[0]["name"]
        assert 1 == long.delete_arms([3])
        assert 16 == len(long.export_events())
        assert 1 == long.import_events([{"event_name": "XYZ", "arm_num": "2"}])
        assert 1 == long.delete_events(["xyz_arm_2"])

        events, mappings = long.export_events(), long.export_instrument_event_mappings()
        arms = [{"arm_num": 1, "name": "Coast"}, {"arm_num": 2, "name": "Estuary"}]
        assert 2 == long.import_arms(arms, override=1)
        assert [] == long.export_events()
        assert 16 == long.import_events(events)
        assert len(mappings) == long.import_instrument_event_mappings(mappings)
        assert mappings == long.export_instrument_event_mappings()
