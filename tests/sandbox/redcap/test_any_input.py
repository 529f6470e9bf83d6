"""Any input to any operation gets a response, never a crash."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.redcap.api.dispatch import OPERATIONS
from tests.sandbox.redcap import studies
from tests.sandbox.redcap.conftest import Api

NAMES = [
    "format", "returnFormat", "data", "records", "fields", "forms", "events", "event", "record",
    "instrument", "field", "repeat_instance", "filterLogic", "type", "rawOrLabel", "arms", "arm",
    "override", "doc_id", "folder_id", "name", "dag", "users", "roles", "dags", "logtype",
    "dateRangeBegin", "csvDelimiter", "new_record_name", "forceAutoNumber", "returnContent",
    "allRecords", "overwriteBehavior", "dateFormat", "decimalCharacter",
]  # fmt: skip
PLAUSIBLE = [
    "", "1", "2", "0", "-1", "json", "csv", "xml", "odm", "eav", "flat", "label", "true", "x",
    "study_id", "observer", "contact", "rings", "start_arm_1", "visit_1_arm_1", "gulls",
    '[{"study_id": "1"}]', '[{"arm_num": 1, "name": "A"}]', '[{"username": "u"}]', "[]", "[{}]",
    '[{"study_id": "3", "redcap_event_name": "start_arm_1", "seasons___1": "1"}]', "[[1]]",
    "study_id,redcap_event_name\n1,start_arm_1",
    "<records><item><study_id>1</study_id></item></records>",
    "[gulls] = 5", "[gulls", "9" * 30, "é\x00\u2028", "'", "%", "2026-01-01 00:00:00",
]  # fmt: skip


@pytest.mark.parametrize(("content", "action"), sorted(OPERATIONS))
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
async def test_any_parameters(api: Api, content: str, action: str, data: st.DataObject) -> None:
    """Plausible and random parameters give 200 or an error in the envelope."""
    if not hasattr(api, "birds"):
        api.birds = await api.create(studies.bird_count())  # type: ignore[attr-defined]
    birds: Api = api.birds  # type: ignore[attr-defined]
    values = st.one_of(st.sampled_from(PLAUSIBLE), st.text(max_size=12))
    names = st.sampled_from(NAMES)
    params: dict[str, Any] = data.draw(
        st.dictionaries(names, st.one_of(values, st.lists(values, max_size=2)), max_size=6)
    )
    answer = await birds.post(content, action=action, **params)
    assert answer.status_code in {200, 400, 403, 501}, (params, answer.text)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    form=st.dictionaries(
        st.sampled_from([
            "demandeur_statut", "demandeur_nom", "invite_date_naissance", "heure_enseignement",
            "__action", "__page", "__code", "cv_invite", "__remove:cv_invite", "form_complete",
            "laboratoire_historique_invitations", "__typed:avis_composante_signature",
        ]),
        st.one_of(st.sampled_from(["1", "2", "refresh", "save", "previous", "open", "9" * 20]),
                  st.text(max_size=10)),
    ),
    instrument=st.sampled_from(["form", "demandeur_composante", "validation_finale"]),
)  # fmt: skip
async def test_any_submission(api: Api, form: dict[str, str], instrument: str) -> None:
    """A survey page accepts any input and responds with a page."""
    await api.save({"record_id": "1"})
    answer = await api.http.post(await api.link("1", instrument), data=form)
    assert answer.status_code in {200, 403, 422}, (form, answer.text)
