"""Settings of surveys, their files, and the overview of the sandbox."""

import re
from typing import Any

import pytest

from tests.sandbox.redcap import studies
from tests.sandbox.redcap.conftest import Api, state_of
from tests.sandbox.redcap.test_surveys import CV, INVITATION

SURVEY = '<redcap:Surveys form_name="members" title="Membership" survey_enabled="1" {attributes}/>'


async def club(api: Api, **attributes: str) -> Api:
    """The garden club with other survey settings."""
    xml = studies.garden_club()
    begin, end = xml.index("<redcap:Surveys "), xml.index("</redcap:SurveysGroup>")
    written = " ".join(f'{name}="{value}"' for name, value in attributes.items())
    return await api.create(xml[:begin] + SURVEY.format(attributes=written) + xml[end:])


class TestSettings:
    async def test_sections_are_pages(self, api: Api) -> None:
        """A section starts a page; going back keeps the answers."""
        members = await club(api, question_by_section="1")
        await members.save({"record_id": "9"})
        link = await members.link("9", "members")
        page = await api.http.get(link)
        assert "Page 1 of 2" in page.text
        page = await api.http.post(link, data={"first_name": "Dee", "length": "2", "width": "3"})
        assert "Page 2 of 2" in page.text
        (row,) = await members.export(records=["9"], exportSurveyFields="true")
        assert ("Dee", "6", "0") == (row["first_name"], row["area"], row["members_complete"])
        assert "[not completed]" == row["members_timestamp"]
        page = await api.http.post(link, data={"__page": "1", "__action": "previous"})
        assert 'value="Dee"' in page.text
        page = await api.http.post(link, data={"__page": "1", "comments": "Nice"})
        assert "completed" == state_of(page.text)

    async def test_editing_later(self, api: Api) -> None:
        """If the survey allows it, a completed response can be edited."""
        members = await club(api, edit_completed_response="1")
        link = await members.link("1", "members")
        for name in ("Dee", "Eve"):
            page = await api.http.post(link, data={"first_name": name})
            assert "completed" == state_of(page.text)
        assert 'value="Eve"' in (await api.http.get(link)).text

    @pytest.mark.parametrize(
        "attributes", [{"survey_expiration": "2020-01-01 00:00"}, {"response_limit": "1"}]
    )
    async def test_closed(self, api: Api, attributes: dict[str, str]) -> None:
        """An expired survey, or one with enough responses, accepts no more."""
        members = await club(api, **attributes)
        await api.http.post(await members.link("1", "members"), data={"first_name": "Dee"})
        link = await members.link("2", "members")
        assert "closed" == state_of((await api.http.get(link)).text)
        assert "closed" == state_of((await api.http.post(link, data={"first_name": "X"})).text)
        assert "Bo" == (await members.export(records=["2"]))[0]["first_name"]

    async def test_redirect(self, api: Api) -> None:
        """A survey may redirect its respondents at the end."""
        members = await club(api, end_survey_redirect_url="https://example.org/thanks")
        link = await members.link("1", "members")
        policy = (await api.http.get(link)).headers["content-security-policy"]
        assert "form-action 'self' https://example.org;" in policy
        page = await api.http.post(link, data={"first_name": "D"})
        assert (303, "https://example.org/thanks") == (page.status_code, page.headers["location"])

    async def test_code_not_asked(self, api: Api) -> None:
        """With code bypass, the link opens saved answers without the code."""
        members = await club(api, save_and_return="1", save_and_return_code_bypass="1")
        link = await members.link("1", "members")
        await api.http.post(link, data={"first_name": "Dee", "__action": "save"})
        assert "open" == state_of((await api.http.get(link)).text)

    async def test_queue(self, api: Api) -> None:
        """The queue of a record lists its surveys and which ones are complete."""
        members = await api.create(studies.garden_club())
        url = await members.text("surveyQueueLink", record="1")
        queue = url.removeprefix("http://sandbox.test")
        page = await api.http.get(queue)
        (address,) = re.findall(r'href="http://sandbox.test(/surveys/\?s=\w+)"', page.text)
        assert address == await members.link("1", "members")
        await api.http.post(address, data={"first_name": "Dee"})
        page = await api.http.get(queue)
        assert "completed" in page.text
        assert 'href="http://sandbox.test/surveys/?s=' not in page.text
        await api.error("surveyQueueLink", record="1")


class TestFiles:
    async def test_replace_and_delete(self, api: Api, link: str) -> None:
        """A document is uploaded and deleted through the API; exports name it, eav numbers it."""
        where: dict[str, Any] = {"record": "r1", "field": "cv_invite"}
        await api.error("file", action="export", **where)
        for name in ("one.txt", "two.txt"):
            form: dict[str, Any] = {"token": api.token, "content": "file", "action": "import"}
            answer = await api.http.post(
                "/api/", data={**form, **where}, files={"file": (name, b"x", "text/plain")}
            )
            assert (200, b"") == (answer.status_code, answer.content)
        assert [{"cv_invite": "two.txt"}] == await api.export(fields=["cv_invite"])
        (row,) = await api.export(fields=["cv_invite"], type="eav")
        assert row["value"].isdigit()
        assert 200 == (await api.post("file", action="delete", **where)).status_code
        assert [{"cv_invite": ""}] == await api.export(fields=["cv_invite"])
        message = await api.error("file", action="export", record="r1", field="email")
        assert "The field 'email' does not exist or is not a 'file' field" == message

    async def test_link_in_a_label(self, api: Api, link: str) -> None:
        """The reviewers' page links to the CV, and to no document that it does not name."""
        await api.http.post(link, data=INVITATION, files=CV)
        address = await api.link("r1", "dossier_reviewer")
        page = (await api.http.get(address)).text
        (target,) = re.findall(r'href="http://sandbox.test([^"]+__file=cv_invite)"', page)
        document = await api.http.get(target.replace("&amp;", "&"))
        assert b"%PDF-1.7 cv" == document.content
        assert "attachment" == document.headers["content-disposition"]
        other = await api.http.get(f"{address}&__file=avis_composante_signature")
        assert 404 == other.status_code


async def test_overview(api: Api, link: str) -> None:
    """The home page shows records, the state of each form and links to their surveys."""
    await api.create(studies.bird_count())
    page = (await api.http.get("/")).text
    assert "r1" in page
    assert link in page
    assert ">à remplir</a>" in page
    other = (await api.http.get("/?project=2")).text
    assert "Start" in other
    assert 200 == (await api.http.get("/?project=x&page=y")).status_code
