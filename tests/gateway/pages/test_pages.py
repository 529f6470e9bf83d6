"""Pages as used by a browser without scripts."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from amarre.survey.v1 import survey_pb2

from gateway.pages import languages
from gateway.pages.page import PAGE_SECONDS
from mesh.chassis.errors import (
    ConflictError,
    DeadlineExceededError,
    MeshError,
    RateLimitedError,
    UnavailableError,
    UpstreamError,
)
from mesh.contract import policy
from tests.gateway.conftest import World

HTML = {"accept": "text/html", "accept-language": "en"}


async def get(world: World, path: str, status: int = 200) -> str:
    """Return the page at *path* in English."""
    answer = await world.http.get(path, headers=HTML)
    assert status == answer.status_code
    return answer.text


def request_of(status: survey_pb2.RequestStatus.ValueType, **step: object) -> survey_pb2.Request:
    """Return a request with one step."""
    request = survey_pb2.Request(id="7", title="Grace Hopper", status=status)
    request.steps.add(**{"instrument": "form", "kind": survey_pb2.STEP_KIND_FORM, **step})
    return request


class TestLanguages:
    def test_same_texts(self) -> None:
        """Both languages have the same texts with the same placeholders."""

        def flat(texts: object, path: str = "") -> dict[str, list[str]]:
            if isinstance(texts, dict):
                found = (flat(value, f"{path}.{key}") for key, value in texts.items())
                return {name: facts for part in found for name, facts in part.items()}
            return {path: sorted(re.findall(r"{(\w+)}", str(texts)))}

        assert flat(dict(languages.texts("fr"))) == flat(dict(languages.texts("en")))

    def test_texts_only(self) -> None:
        """Templates contain no words: placeholders, labels and sentences come from the texts."""
        words = re.compile(
            r"""(?:placeholder|title|aria-label|alt)="([^"{]*[A-Za-z][^"]*)\""""
            r"""|>([^<>{}%]*[A-Za-z]{3}[^<>{}%]*)<"""
        )
        templates = Path(languages.__file__).parent / "templates"
        found = {
            str(file.relative_to(templates)): "".join(one)
            for file in templates.rglob("*.html")
            for one in words.findall(file.read_text())
        }

        assert {} == found

    @pytest.mark.parametrize(
        ("header", "language"),
        [
            ("", "fr"),
            ("en", "en"),
            ("en-GB,en;q=0.9", "en"),
            ("de,en;q=0.5,fr;q=0.4", "en"),
            ("en;q=0.1,fr;q=0.9", "fr"),
            ("de", "fr"),
            ("en;q=x", "fr"),
            (";;,=,q", "fr"),
        ],
    )
    async def test_accepted(self, world: World, header: str, language: str) -> None:
        """A supported language of the visitor is used, otherwise French."""
        answer = await world.http.get("/", headers={"accept-language": header})
        assert language == answer.headers["content-language"]
        assert f'<html lang="{language}">' in answer.text

    async def test_chosen(self, world: World) -> None:
        """A chosen language is remembered and takes precedence over Accept-Language."""
        answer = await world.http.get("/?lang=en", headers={"accept-language": "fr"})
        assert "lang=en" in answer.headers["set-cookie"]
        again = await world.http.get("/", headers={"accept-language": "fr", "cookie": "lang=en"})
        assert "en" == again.headers["content-language"]


class TestRequests:
    @pytest.mark.parametrize(
        "failure", [UnavailableError("Unavailable."), UpstreamError("HTML instead of JSON.")]
    )
    async def test_outage(self, world: World, failure: MeshError) -> None:
        """While REDCap fails, the page says so instead of showing an empty list."""
        world.sign_in()
        world.survey.does.failures["ListRequests"] = failure
        page = await get(world, "/", failure.contract.http)
        assert "Your requests cannot be shown" in page
        assert "ada@example.org" in page

    async def test_card(self, world: World) -> None:
        """A request shows its title, its steps with their states, and the next link."""
        world.sign_in()
        request = request_of(
            survey_pb2.REQUEST_STATUS_TO_COMPLETE,
            state=survey_pb2.STEP_STATE_TO_DO,
            url="https://redcap.test/surveys/?s=1&x=<b>",
        )
        request.steps.add(
            instrument="labo",
            kind=survey_pb2.STEP_KIND_OPINION,
            state=survey_pb2.STEP_STATE_DONE,
            opinion=survey_pb2.OPINION_UNFAVOURABLE,
        )
        world.survey.listed = [request]
        page = await get(world, "/")
        assert "Grace Hopper" in page
        assert "To fill in" in page
        assert "https://redcap.test/surveys/?s=1&amp;x=&lt;b&gt;" in page
        assert 'class="step against"' in page

    async def test_stopped(self, world: World) -> None:
        """A request stopped by an unfavourable opinion does not look like one in progress."""
        world.sign_in()
        world.survey.listed = [
            request_of(
                survey_pb2.REQUEST_STATUS_TO_FOLLOW,
                kind=survey_pb2.STEP_KIND_OPINION,
                state=survey_pb2.STEP_STATE_DONE,
                opinion=survey_pb2.OPINION_UNFAVOURABLE,
            )
        ]
        page = await get(world, "/?tab=follow")
        assert '<p class="chip stopped">Stopped</p>' in page
        assert '<p class="chip to_follow">' not in page

    async def test_filled_form_is_pdf(self, world: World) -> None:
        """A filled form links to its PDF, with the id escaped."""
        world.sign_in()
        request = request_of(survey_pb2.REQUEST_STATUS_TO_FOLLOW, state=survey_pb2.STEP_STATE_DONE)
        request.id = "a&b"
        world.survey.listed = [request]
        assert "/api/v1/surveys/pdf?record_id=a%26b" in await get(world, "/?tab=follow")

    async def test_script_url(self, world: World) -> None:
        """Only http and https URLs become links."""
        world.sign_in()
        world.survey.listed = [
            request_of(
                survey_pb2.REQUEST_STATUS_TO_COMPLETE,
                state=survey_pb2.STEP_STATE_TO_DO,
                url="javascript:alert(1)",
            )
        ]
        assert "javascript:" not in await get(world, "/")

    async def test_tabs(self, world: World) -> None:
        """A tab appears only when it has content."""
        world.sign_in()
        page = await get(world, "/")
        assert "tab=complete" not in page
        assert "tab=submit" in page
        world.survey.listed = [request_of(survey_pb2.REQUEST_STATUS_DONE)]
        page = await get(world, "/?tab=complete")
        assert "tab=follow" in page
        assert "Finished" in page

    @pytest.mark.parametrize(("pages", "more"), [(20, False), (21, True)])
    async def test_many_requests(self, world: World, pages: int, more: bool) -> None:
        """Every request is listed, or else the page says that it shows only the newest."""
        world.sign_in()
        tokens = ["", *(f"page-{n}" for n in range(1, pages)), ""]
        world.survey.pages = {
            token: ([str(n)], tokens[n + 1]) for n, token in enumerate(tokens[:-1])
        }
        page = await get(world, "/")
        assert 20 == page.count('<article class="card')
        assert more is ("Only your 20 newest requests are shown" in page)

    async def test_create(self, world: World) -> None:
        """The form creates a request with consent, the notice that was shown, and a key."""
        world.sign_in()
        page = await get(world, "/?tab=submit")
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]+)"', page))
        answer = await world.http.post("/requests", data={**fields, "consent": "yes"})
        assert 303 == answer.status_code
        sent = world.survey.does.last("CreateRequest")
        assert sent.consent
        assert fields["notice_version"] == sent.notice_version
        assert fields["key"] == sent.idempotency_key
        assert "/?tab=complete&done=42" == answer.headers["location"]

    async def test_created(self, world: World) -> None:
        """The page says that a request was created only above that request."""
        world.sign_in()
        world.survey.listed = [request_of(survey_pb2.REQUEST_STATUS_TO_COMPLETE)]
        for query, said in (
            ("tab=complete&done=7", True),
            ("tab=complete&done=8", False),
            ("tab=complete&done=created", False),
            ("tab=submit&done=7", False),
        ):
            assert said is ("has been created" in await get(world, f"/?{query}"))

    async def test_not_created(self, world: World) -> None:
        """An error is shown on the form with its reason."""
        world.sign_in()

        class OpenError(ConflictError):
            area, reason = "survey", "OPEN_REQUEST_EXISTS"

        world.survey.does.failures["CreateRequest"] = OpenError("One is open.")
        answer = await world.http.post("/requests", data={"consent": "yes"}, headers=HTML)
        assert 409 == answer.status_code
        assert "You already have a request" in answer.text

    @pytest.mark.parametrize("kind", [UnavailableError, UpstreamError, DeadlineExceededError])
    async def test_outcome_unknown(self, world: World, kind: type[MeshError]) -> None:
        """
        If it is not known whether a request was created, the page says so, and its form continues
        the same request.
        """
        world.sign_in()
        world.survey.does.failures["CreateRequest"] = kind("REDCap is slow.")
        fields = {"consent": "yes", "key": "one"}
        page = await world.http.post("/requests", data=fields, headers=HTML)
        assert "it is not known whether your request has been created" in page.text
        assert 'name="key" value="one"' in page.text

        world.survey.does.failures["CreateRequest"] = ConflictError("One is open.")
        page = await world.http.post("/requests", data=fields, headers=HTML)
        assert 'name="key" value="one"' not in page.text

    def test_deadline(self) -> None:
        """A page has time to list the requests after a creation that took its whole deadline."""
        mesh = policy.load()
        calls = ("auth.VerifySession", "survey.CreateRequest", "survey.ListRequests")
        assert PAGE_SECONDS > sum(mesh.method(name).deadline_seconds for name in calls)

    async def test_create_signed_out(self, world: World) -> None:
        """Creating without a session leads to the welcome page, and creates nothing."""
        answer = await world.http.post("/requests", data={"consent": "yes"}, headers=HTML)
        assert 401 == answer.status_code
        assert not world.survey.does.requests


class TestErrors:
    async def test_for_people(self, world: World) -> None:
        """Browsers get an error page, programs get the envelope."""
        page = await get(world, "/nothing", 404)
        assert "This page does not exist" in page
        assert "error" in (await world.http.get("/nothing")).json()

    @pytest.mark.parametrize("language", ["fr", "en"])
    @pytest.mark.parametrize(
        ("service", "rpc", "path"),
        [
            ("auth", "SignUp", "/signup"),
            ("auth", "LogIn", "/login"),
            ("auth", "RemovePasskey", "/passkeys/remove"),
            ("survey", "CreateRequest", "/requests"),
        ],
    )
    async def test_when_to_try_again(
        self, world: World, service: str, rpc: str, path: str, language: str
    ) -> None:
        """
        A page that refuses says when to try again, in the header and in words.

        Source: RFC 9110, section 10.2.3; RFC 6585, section 4.
        """
        world.sign_in()
        limited = RateLimitedError("Too many.", retry_after=timedelta(seconds=121))
        getattr(world, service).does.failures[rpc] = limited
        form = {"email": "ada@example.org", "userId": "aa", "secret": "bb", "consent": "yes"}
        headers = HTML | {"accept-language": language}
        page = await world.http.post(path, data=form | {"id": "one"}, headers=headers)
        assert (429, "121") == (page.status_code, page.headers["retry-after"])
        assert "3 minutes" in page.text

    @pytest.mark.parametrize(
        ("failing", "path"),
        [("VerifySession", "/"), ("ListRequests", "/"), ("LogOut", "/logout")],
    )
    async def test_unavailable(self, world: World, failing: str, path: str) -> None:
        """A page of a service that is unavailable says in the header when to try again."""
        world.sign_in()
        error = UnavailableError("Unavailable.")
        world.auth.does.failures[failing] = world.survey.does.failures[failing] = error
        method = "POST" if path == "/logout" else "GET"
        page = await world.http.request(method, path, headers=HTML)
        assert (503, "1") == (page.status_code, page.headers["retry-after"])

    @pytest.mark.parametrize(
        ("seconds", "words"),
        [(1, "a moment"), (10, "a moment"), (11, "one minute"), (60, "one minute"), (61, "2 min")],
    )
    def test_wait_in_words(self, seconds: int, words: str) -> None:
        """Waits are rounded up to whole minutes; up to ten seconds are a moment."""
        error = RateLimitedError("Too many.", retry_after=timedelta(seconds=seconds))
        assert languages.Translator("en").wait(error).startswith(words)

    @pytest.mark.parametrize(
        ("content", "kind"),
        [
            ("{}", "application/json"),
            ("email=%ff", "application/x-www-form-urlencoded"),
            ("email=a&email=b", "application/x-www-form-urlencoded"),
            ("&".join("abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"), "application/x-www-form-urlencoded"),
        ],
    )
    async def test_unreadable_form(self, world: World, content: str, kind: str) -> None:
        """A form that cannot be read is 400."""
        headers = {"content-type": kind}
        answer = await world.http.post("/signup", content=content, headers=headers)
        assert (400, "invalid_request") == (answer.status_code, answer.json()["error"]["code"])

    async def test_no_inline_code(self, world: World) -> None:
        """No page needs anything that the content security policy forbids."""
        world.sign_in()
        for path in ("/", "/?tab=account", "/?tab=data", "/notice", "/signup", "/api/docs"):
            page = await get(world, path)
            assert not re.search(r"<script(?![^>]*src=)|<style| style=| on\w+=", page)
