"""Links from other sites, and browsers that do not store cookies."""

import re
from pathlib import Path

import pytest

from gateway import pages
from gateway.pages.languages import LANGUAGES, Translator
from mesh.chassis.errors import UnavailableError
from tests.gateway.conftest import World

CLICK = {
    "accept": "text/html,*/*;q=0.8",
    "accept-language": "en",
    "sec-fetch-site": "cross-site",
    "sec-fetch-mode": "navigate",
    "sec-fetch-dest": "document",
}


@pytest.mark.parametrize(
    "path",
    ["/", "/confirm", "/api/v1/surveys/pdf?record_id=7", "/api/v1/surveys/data?format=csv"],
)
async def test_link_in_a_mail(world: World, path: str) -> None:
    """
    A click on another site, without the strict cookie, gets a page that reopens the link.

    Source: RFC 6265bis, section 5.6.7.1.
    """
    answer = await world.http.get(path, headers=CLICK)
    assert 200 == answer.status_code
    assert 'http-equiv="refresh"' in answer.text
    assert f'href="{path}"' in answer.text


@pytest.mark.parametrize(
    "changed",
    [
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
    ],
)
async def test_other_requests(world: World, changed: dict[str, str]) -> None:
    """Any other request without a session is 401, and is not repeated."""
    answer = await world.http.get("/api/v1/surveys/data", headers=CLICK | changed)
    assert 401 == answer.status_code
    assert "refresh" not in answer.text


async def test_signed_in(world: World) -> None:
    """A navigation with the cookie is served at once."""
    world.sign_in()
    answer = await world.http.get("/confirm", headers=CLICK)
    assert "refresh" not in answer.text


async def test_target_is_escaped(world: World) -> None:
    """The address of the link cannot inject markup."""
    path = '/api/v1/surveys/pdf?record_id="><script>'
    answer = await world.http.get(path, headers=CLICK)
    assert "<script>" not in answer.text


async def test_no_cookie(world: World) -> None:
    """
    A browser that did not store the cookie at sign-in gets an explanation, with a link to HTTPS.

    Safari does not store Secure cookies of http://localhost.
    """
    answer = await world.http.post("/login", data={"userId": "aa", "secret": "bb"})
    assert (303, "/?signed_in=1") == (answer.status_code, answer.headers["location"])
    world.http.cookies.clear()
    told = await world.http.get("/?signed_in=1", headers={"accept-language": "en"})
    assert "did not keep the session" in told.text
    assert 'href="https://localhost:3443/signup"' in told.text


async def test_cookie_kept(world: World) -> None:
    """A browser with the cookie is redirected to its own page."""
    world.sign_in()
    answer = await world.http.get("/?signed_in=1")
    assert (303, "/") == (answer.status_code, answer.headers["location"])


async def test_outage_is_not_emptiness(world: World) -> None:
    """While REDCap is unavailable, the data page does not claim that no form was filled in."""
    world.sign_in()
    page = await world.http.get("/?tab=data", headers={"accept-language": "en"})
    assert "No form has been filled in yet" in page.text
    world.survey.does.failures["ListRequests"] = UnavailableError("Unavailable.")
    page = await world.http.get("/?tab=data", headers={"accept-language": "en"})
    assert "No form has been filled in yet" not in page.text
    assert "Your forms cannot be listed right now" in page.text


async def test_referrer(world: World) -> None:
    """
    Pages permit browsers without Fetch Metadata to send a real Origin with forms.

    With ``no-referrer`` they send ``Origin: null`` (Fetch, section 3.2).
    """
    assert "same-origin" == (await world.http.get("/")).headers["referrer-policy"]


def test_every_text_exists() -> None:
    """Every text used by a template exists in each language."""
    folder = Path(pages.__file__).parent / "templates"
    named = {
        name
        for template in folder.rglob("*.html")
        for name in re.findall(r"""\bt\(["']([a-z_.0-9]+)["']""", template.read_text("utf-8"))
        if not name.endswith((".", "_"))
    }
    assert len(named) > 50
    for language in LANGUAGES:
        for name in sorted(named):
            assert Translator(language)(name)
