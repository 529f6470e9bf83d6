"""Survey pages: what a link opens, what a respondent may send, what is stored."""

import re

import httpx
import pytest

from tests.sandbox.redcap.conftest import Api, state_of

INVITATION = {
    "demandeur_nom": "Lovelace",
    "demandeur_prenom": "Ada",
    "demandeur_statut": "2",
    "demandeur_composante": "3",
    "invitation_periode": "mai 2027",
    "invitation_duree_jours": "30",
    "invite_nom": "Charles Babbage",
    "invite_date_naissance": "1991-12-26",
    "invite_nationalite": "britannique",
    "invite_adresse_postale": "Londres",
    "invite_courriel": "charles@example.org",
    "invite_telephone": "+44 20 0000 0000",
    "invite_etablissement": "4",
    "invite_etablissement_autre": "Cambridge",
    "invite_fonction": "Professeur",
    "invite_specialite": "Mécanique",
    "invite_diplome_max": "Doctorat",
    "enseignement_composante": "3",
    "composante_directeur_courriel": "composante@example.org",
    "heure_enseignement": "12",
    "enseignement_projet_pedagogique": "Un cours.",
    "enseignement_interet_composante": "Grand.",
    "mobilite_interet_etablissement": "Grand.",
}
"""Required answers of a teacher who invites a guest."""

CV = {"cv_invite": ("cv.pdf", b"%PDF-1.7 cv", "application/pdf")}
OPINION = {
    "avis_composante_directeur_nom": "Grace Hopper",
    "avis_composante_position": "1",
    "avis_composante_motivation": "Très bien.",
}


def faults(page: httpx.Response) -> list[str]:
    """Names of the fields that the page marks as invalid."""
    return re.findall(r'id="([a-z_]+)-fault"', page.text)


def shown(page: httpx.Response) -> list[str]:
    """Names of the fields that the page shows."""
    return [
        name
        for name, rest in re.findall(r'data-field="(\w+)"([^>]*)>', page.text)
        if "hidden" not in rest.split()
    ]


class TestLinks:
    async def test_one_per_record_and_form(self, api: Api, link: str) -> None:
        """A link is an address with 16 capitals and digits, the same each time."""
        assert re.fullmatch(r"/surveys/\?s=[A-Z0-9]{16}", link)
        assert link == await api.link("r1", "form")
        assert link != await api.link("r1", "labo")

    async def test_refused(self, api: Api, link: str) -> None:
        """There is no link for unknown records and instruments, or for non-surveys."""
        message = await api.error("surveyLink", record="-1", instrument="form")
        assert 'The record "-1" does not exist' == message
        for instrument in ("nope", "contact", ""):
            await api.error("surveyLink", record="r1", instrument=instrument)

    async def test_participants(self, api: Api, link: str) -> None:
        """Every record is listed with its link and its completion status."""
        (row,) = await api.json("participantList", instrument="form")
        assert ("r1", 0, f"http://sandbox.test{link}") == (
            row["record"], row["response_status"], row["survey_link"],
        )  # fmt: skip
        await api.http.post(link, data={**INVITATION}, files=CV)
        (row,) = await api.json("participantList", instrument="form")
        assert 2 == row["response_status"]

    @pytest.mark.parametrize("query", ["", "?s=", "?s=AAAAAAAAAAAAAAAA", "?sq=X", "?s='"])
    async def test_unknown(self, api: Api, query: str) -> None:
        """An unknown link opens an explanatory page with status 404."""
        page = await api.http.get(f"/surveys/{query}")
        assert (404, "unknown") == (page.status_code, state_of(page.text))

    async def test_gone_with_its_record(self, api: Api, link: str) -> None:
        """The link of a deleted record opens nothing."""
        await api.json("record", action="delete", records=["r1"])
        assert 404 == (await api.http.get(link)).status_code


class TestPage:
    async def test_language_and_safety(self, api: Api, link: str) -> None:
        """The page declares the study's language, runs no foreign script and leaks nothing."""
        page = await api.http.get(link)
        assert '<html lang="fr">' in page.text
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "no-referrer" == page.headers["referrer-policy"]
        assert "no-store" == page.headers["cache-control"]
        assert not re.search(r"<script(?![^>]*src=)|style=|onclick=", page.text)

    async def test_labels_for_everything(self, api: Api, link: str) -> None:
        """Every control has a label or is in a fieldset with a legend."""
        page = (await api.http.get(link)).text
        controls = re.findall(r'<(?:input|select|textarea)[^>]* id="(\w+)"', page)
        assert 40 < len(controls)
        assert [] == [name for name in controls if f'<label for="{name}">' not in page]
        assert page.count("<fieldset") == page.count("<legend>")

    async def test_only_what_branching_shows(self, api: Api, link: str) -> None:
        """Before any answer only the first questions are visible; the others are hidden."""
        page = await api.http.get(link)
        assert ["demandeur_nom", "demandeur_prenom", "demandeur_statut"] == shown(page)
        assert "data-logic=" in page.text

    async def test_refresh_without_script(self, api: Api, link: str) -> None:
        """
        Without scripts a button shows the questions that the answers lead to, and stores nothing.
        """
        form = {"demandeur_nom": "A", "demandeur_statut": "1", "__action": "refresh"}
        page = await api.http.post(link, data=form)
        assert "mobilite_type" in shown(page)
        assert "demandeur_composante" not in shown(page)
        assert 'value="A"' in page.text
        assert [{"demandeur_nom": ""}] == await api.export(fields=["demandeur_nom"])

    async def test_answers_of_others_in_labels(self, api: Api, link: str) -> None:
        """Labels contain other answers, escaped; missing ones are underlined."""
        await api.save({"record_id": "r1", "demandeur_prenom": "<b>Ada</b>"})
        page = await api.http.get(await api.link("r1", "labo"))
        assert "Demande de &lt;b&gt;Ada&lt;/b&gt; ______" in page.text

    async def test_status_in_labels(self, api: Api, link: str) -> None:
        """The final validation shows the status of each opinion."""
        await api.save({"record_id": "r1", "demandeur_statut": "2"})
        address = await api.link("r1", "validation_finale")
        page = await api.http.get(address)
        assert "Avis de la composante : Incomplete" in page.text
        assert ["validation_statut_composante"] == shown(page)


class TestSubmission:
    async def test_complete(self, api: Api, link: str) -> None:
        """A complete submission is stored with a timestamp and marks the form complete."""
        page = await api.http.post(link, data=INVITATION, files=CV)
        assert (200, "completed") == (page.status_code, state_of(page.text)), faults(page)
        (row,) = await api.export(forms=["form"], exportSurveyFields="true")
        assert ("2", "Charles Babbage", "cv.pdf") == (
            row["form_complete"], row["invite_nom"], row["cv_invite"],
        )  # fmt: skip
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row["form_timestamp"])
        file = await api.post("file", action="export", record="r1", field="cv_invite")
        assert b"%PDF-1.7 cv" == file.content
        assert 'application/pdf; name="cv.pdf";charset=UTF-8' == file.headers["content-type"]

    async def test_once(self, api: Api, link: str) -> None:
        """A completed survey accepts nothing more and shows no answers."""
        await api.http.post(link, data=INVITATION, files=CV)
        for page in (
            await api.http.get(link),
            await api.http.post(link, data={**INVITATION, "invite_nom": "Other"}, files=CV),
        ):
            assert "completed" == state_of(page.text)
            assert "Babbage" not in page.text
        assert [{"invite_nom": "Charles Babbage"}] == await api.export(fields=["invite_nom"])

    async def test_required(self, api: Api, link: str) -> None:
        """Required questions that are visible must be answered; nothing is stored until then."""
        page = await api.http.post(link, data={**INVITATION, "invite_nom": " "})
        assert 422 == page.status_code
        assert ["invite_nom", "cv_invite"] == faults(page)
        assert 'role="alert"' in page.text
        assert [{"form_complete": "0"}] == await api.export(fields=["form_complete"])

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("invite_courriel", "charles"),
            ("invitation_duree_jours", "un mois"),
            ("heure_enseignement", "301"),
            ("invite_date_naissance", "1991-02-30"),
            ("demandeur_composante", "9"),
        ],
    )
    async def test_formats(self, api: Api, link: str, field: str, value: str) -> None:
        """Formats, limits and choices are enforced."""
        page = await api.http.post(link, data={**INVITATION, field: value}, files=CV)
        assert [field] == faults(page)

    async def test_day_in_the_order_shown(self, api: Api, link: str) -> None:
        """A date may be typed day first and is stored year first."""
        form = {**INVITATION, "invite_date_naissance": "26/12/1991"}
        await api.http.post(link, data=form, files=CV)
        rows = await api.export(fields=["invite_date_naissance"])
        assert [{"invite_date_naissance": "1991-12-26"}] == rows

    async def test_hidden_answers_are_cleared(self, api: Api, link: str) -> None:
        """Answers hidden by branching, directly or indirectly, are not stored."""
        await api.save({"record_id": "r1", "mobilite_type": "1", "invitation_type": "1"})
        form = {**INVITATION, "mobilite_type": "1", "invitation_type": "1"}
        page = await api.http.post(link, data=form, files=CV)
        assert "completed" == state_of(page.text), faults(page)
        (row,) = await api.export(fields=["mobilite_type", "invitation_type"])
        assert {"mobilite_type": "", "invitation_type": ""} == row

    async def test_fields_of_other_forms_are_ignored(self, api: Api, link: str) -> None:
        """A respondent can only write to the form of the link."""
        form = {**INVITATION, "userid": "mallory", "statut_dossier": "5", "contact_complete": "2"}
        await api.http.post(link, data=form, files=CV)
        (row,) = await api.export(fields=["userid", "statut_dossier", "contact_complete"])
        assert {"userid": "u1", "statut_dossier": "", "contact_complete": "0"} == row

    async def test_signature(self, api: Api, link: str) -> None:
        """An opinion is signed with an image, or with a typed name that becomes one."""
        address = await api.link("r1", "demandeur_composante")
        page = await api.http.post(address, data=OPINION)
        assert ["avis_composante_signature"] == faults(page)
        form = {**OPINION, "__typed:avis_composante_signature": "Grace Hopper"}
        page = await api.http.post(address, data=form)
        assert "completed" == state_of(page.text)
        file = await api.post("file", action="export", record="r1",
                              field="avis_composante_signature")  # fmt: skip
        assert file.content.startswith(b"\x89PNG")

    async def test_empty_page_can_be_sent(self, api: Api, link: str) -> None:
        """
        A survey without questions, such as the final validation, is completed by submitting it.
        """
        address = await api.link("r1", "validation_finale")
        assert "completed" == state_of((await api.http.post(address)).text)
        rows = await api.export(fields=["validation_finale_complete"], rawOrLabel="label")
        assert [{"validation_finale_complete": "Complete"}] == rows


class TestReturning:
    async def test_save_and_return(self, api: Api, link: str) -> None:
        """Saved answers require a code, which the API returns too."""
        page = await api.http.post(link, data={"demandeur_nom": "Lovelace", "__action": "save"})
        assert "saved" == state_of(page.text)
        code = await api.text("surveyReturnCode", record="r1", instrument="form")
        assert re.fullmatch(r"[A-Z0-9]{8}", code)
        assert code in page.text
        assert [{"form_timestamp": "[not completed]", "demandeur_nom": "Lovelace"}] == (
            await api.export(fields=["demandeur_nom"], exportSurveyFields="true")
        )

        page = await api.http.get(link)
        assert "code" == state_of(page.text)
        assert "Lovelace" not in page.text
        page = await api.http.post(link, data={"__code": "WRONG234", "__action": "open"})
        assert (403, "code") == (page.status_code, state_of(page.text))
        page = await api.http.post(link, data={"__code": code.lower(), "__action": "open"})
        assert "open" == state_of(page.text)
        assert "Lovelace" in page.text
        page = await api.http.post(link, data={**INVITATION, "__code": code}, files=CV)
        assert "completed" == state_of(page.text), faults(page)

    async def test_nobody_submits_without_the_code(self, api: Api, link: str) -> None:
        """A partial response cannot be overwritten without its code."""
        await api.http.post(link, data={"demandeur_nom": "Lovelace", "__action": "save"})
        page = await api.http.post(link, data=INVITATION, files=CV)
        assert "code" == state_of(page.text)
        assert [{"demandeur_nom": "Lovelace"}] == await api.export(fields=["demandeur_nom"])
