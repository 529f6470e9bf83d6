"""A researcher as an HTTP client, which sends what a browser would.

``python -m tests.integration.researcher READY_FILE`` goes the whole way once and says so.
"""

import json
import re
import ssl
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx

COOKIE = "__Host-amarre_session"
PATIENCE = 600
"""Looks, 50 ms apart: a machine with other work to do is slow, and that is no fault."""
INVITES_FOR_RESEARCH: Mapping[str, str] = {
    "demandeur_nom": "Lovelace",
    "demandeur_prenom": "Ada",
    "demandeur_statut": "1",
    "demandeur_laboratoire": "3",
    "laboratoire_directeur_courriel": "labo@example.org",
    "mobilite_type": "1",
    "invitation_type": "3",
    "invitation_periode": "mai 2027",
    "invitation_duree_jours": "12",
    "invite_nom": "Emmy Noether",
    "invite_date_naissance": "23-03-1982",
    "invite_nationalite": "allemande",
    "invite_adresse_postale": "1 rue des Groupes, Göttingen",
    "invite_courriel": "emmy@example.org",
    "invite_telephone": "+49 551 000",
    "invite_etablissement": "2",
    "invite_etablissement_gu8": "13",
    "invite_fonction": "professeure",
    "invite_specialite": "algèbre",
    "invite_diplome_max": "habilitation",
    "invitation_projet_recherche": "Anneaux, idéaux et symétries.",
    "laboratoire_historique_invitations": "0",
    "laboratoire_invitations_2025": "0",
    "invitation_interet_laboratoire": "Un séminaire commun.",
    "enseignement_composante": "3",
    "composante_directeur_courriel": "composante@example.org",
    "heure_enseignement": "12",
    "enseignement_projet_pedagogique": "Un cours d'algèbre.",
    "enseignement_interet_composante": "Ouvrir la formation.",
    "mobilite_interet_etablissement": "Un partenariat durable.",
}
"""A form that needs two opinions: of the component, since it teaches, and of the laboratory."""
A_PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
A_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c636000000000050001a5f645400000000049454e44ae426082"
)


@dataclass
class Form:
    """An HTML form on a page."""

    action: str = ""
    values: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    submits: list[str] = field(default_factory=list)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(action=given.get("action", "")))
        name = given.get("name", "")
        if not self.forms or not name:
            return
        form = self.forms[-1]
        kind = given.get("type", "text")
        if tag == "input" and kind == "file":
            form.files.append(name)
        elif tag == "input" and kind in {"hidden", "text", "email", "date", "number"}:
            form.values[name] = given.get("value", "")
        elif tag == "button" and kind == "submit":
            form.submits.append(name)


def forms_of(html: str) -> list[Form]:
    """Return the forms of a page."""
    parser = _Forms()
    parser.feed(html)
    return parser.forms


class Researcher:
    """One user with one browser, on the mesh of a ready file."""

    def __init__(self, ready: Mapping[str, Any], email: str = "ada@example.org") -> None:
        self.email = email
        self.app = ready["urls"]["app"]
        self.outbox = ready["urls"]["outbox"]
        self.sandbox = ready["sandbox"]
        # The certificate of the edge, where it is not one that every machine trusts.
        verify = ssl.create_default_context(cafile=ready["ca"]) if "ca" in ready else True
        self._http = httpx.Client(base_url=self.app, timeout=30, trust_env=False, verify=verify)
        self._session = ""
        self._before = ""
        """The newest mail when a link was asked for last."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def session(self) -> str:
        """The value of the session cookie; empty when signed out."""
        return self._session

    def send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """Send a request like a page of the application.

        The cookie is kept by hand: it is Secure, which browsers allow on a loopback address and
        Python's cookie jar does not.
        """
        headers = {"Sec-Fetch-Site": "same-origin", **kwargs.pop("headers", {})}
        if self._session:
            headers["Cookie"] = f"{COOKIE}={self._session}"
        answer = self._http.request(method, path, headers=headers, **kwargs)
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            if name == COOKIE:
                self._session = value.strip('"')
        return answer

    def data(self, method: str, path: str, **kwargs: Any) -> Any:
        """Send a request that must succeed; return the envelope's data."""
        answer = self.send(method, path, **kwargs)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:500]}"
        envelope = answer.json()
        assert envelope["error"] is None
        return envelope["data"]

    def ask_for_link(self) -> None:
        """Sign up."""
        self._before = self._newest_id()
        assert self.data("POST", "/api/v1/auth/signup", json={"email": self.email})["signedUp"]

    def mailed_link(self) -> str:
        """Return the last link mailed to this user, waiting for the requested one."""
        for _ in range(PATIENCE):
            mine = self._mails()
            if mine and mine[0]["id"] != self._before:
                return str(next(link for link in mine[0]["links"] if "secret=" in link))
            _pause()
        raise AssertionError(f"no mail for {self.email}")

    def log_in(self, link: str) -> None:
        """Follow a mailed link: open its page, which does not consume it, then log in."""
        page = self.send("GET", link.removeprefix(self.app))
        assert page.status_code == 200
        query = parse_qs(urlsplit(link).query)
        body = {"userId": query["userId"][0], "secret": query["secret"][0]}
        assert self.data("POST", "/api/v1/auth/login", json=body)["loggedIn"]
        assert self._session

    def sign_in(self) -> None:
        """Sign up and sign in."""
        self.ask_for_link()
        self.log_in(self.mailed_link())

    def _newest_id(self) -> str:
        return str(next((mail["id"] for mail in self._mails()), ""))

    def _mails(self) -> list[dict[str, Any]]:
        mails = httpx.get(f"{self.outbox}/messages", trust_env=False).json()
        return [mail for mail in mails if self.email in json.dumps(mail["to"])]

    def create(self, **headers: str) -> str:
        """Create a request; return its id."""
        created = self.data(
            "POST", "/api/v1/surveys/requests", json={"consent": True}, headers=headers
        )
        assert created["newRequestCreated"] == 1
        return str(created["id"])

    def requests(self) -> list[dict[str, Any]]:
        """List the requests."""
        listed: list[dict[str, Any]] = self.data("GET", "/api/v1/surveys/requests")
        return listed

    def step(self, request: str, instrument: str) -> dict[str, Any]:
        """Return one step of one request."""
        found = next(r for r in self.requests() if r["id"] == request)
        return next(s for s in found["steps"] if s["instrument"] == instrument)

    def survey_link(self, request: str, instrument: str) -> str:
        """Get the link of any instrument from REDCap, like its mails to directors."""
        answer = httpx.post(
            self.sandbox["api_url"],
            data={
                "token": self.sandbox["token"],
                "content": "surveyLink",
                "record": request,
                "instrument": instrument,
                "format": "json",
            },
            trust_env=False,
        )
        assert answer.is_success, answer.text
        return answer.text

    def fill(self, link: str, answers: Mapping[str, str]) -> None:
        """Fill in and submit the survey page at *link*, including files."""
        with httpx.Client(trust_env=False, follow_redirects=True, timeout=30) as browser:
            page = browser.get(link)
            for _ in range(8):
                form = next(f for f in forms_of(page.text) if "__page" in f.values)
                given = form.values | dict(answers)
                files = {name: _upload(name) for name in form.files if _is_wanted(name, answers)}
                page = browser.post(urljoin(link, form.action), data=given, files=files or None)
                assert page.is_success, page.text[:2000]
                if not any("__page" in f.values for f in forms_of(page.text)):
                    return
            raise AssertionError(f"the survey did not end: {_text(page.text)[:1500]}")

    def give_opinion(self, request: str, instrument: str, prefix: str, position: str) -> None:
        """Give an opinion: 1 favourable, 2 with reservations, 3 unfavourable."""
        name = "avis_encadrant_nom" if prefix == "encadrant" else f"avis_{prefix}_directeur_nom"
        self.fill(
            self.survey_link(request, instrument),
            {
                name: "Grace Hopper",
                f"avis_{prefix}_position": position,
                f"avis_{prefix}_motivation": "Un bon projet.",
            },
        )


def _upload(name: str) -> tuple[str, bytes, str]:
    if "signature" in name:
        return "signature.png", A_PNG, "image/png"
    return "document.pdf", A_PDF, "application/pdf"


def _is_wanted(name: str, answers: Mapping[str, str]) -> bool:
    return "signature" in name or (name == "cv_invite" and answers.get("mobilite_type") == "1")


def _text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def _pause() -> None:
    import time

    time.sleep(0.05)


def whole_way(ready: Mapping[str, Any], email: str) -> None:
    """
    Complete the whole flow from sign-up to a finished request, its data and its PDF, and sign out.
    """
    with Researcher(ready, email) as ada:
        ada.sign_in()
        assert ada.data("GET", "/api/v1/me")["email"] == email
        request = ada.create()
        assert ada.requests()[0]["status"] == "REQUEST_STATUS_TO_COMPLETE"
        assert ada.send("POST", "/api/v1/surveys/new", json={"consent": True}).status_code == 409

        link = ada.data(
            "GET", "/api/v1/surveys/links", params={"record": request, "instrument": "form"}
        )["url"]
        assert link == ada.step(request, "form")["url"]
        ada.fill(link, INVITES_FOR_RESEARCH)
        _eventually(lambda: ada.step(request, "form")["state"] == "STEP_STATE_DONE")
        assert ada.requests()[0]["status"] == "REQUEST_STATUS_TO_FOLLOW"
        assert ada.requests()[0]["title"] == "Emmy Noether"
        for instrument in ("demandeur_composante", "labo"):
            assert ada.step(request, instrument)["state"] == "STEP_STATE_UNDER_REVIEW"
        assert ada.step(request, "validation_finale")["state"] == "STEP_STATE_WAITING"

        ada.give_opinion(request, "demandeur_composante", "composante", "1")
        ada.give_opinion(request, "labo", "laboratoire", "2")
        _eventually(lambda: ada.step(request, "validation_finale")["state"] == "STEP_STATE_TO_DO")
        assert ada.step(request, "demandeur_composante")["opinion"] == "OPINION_FAVOURABLE"
        assert ada.step(request, "labo")["opinion"] == "OPINION_WITH_RESERVATIONS"
        ada.fill(ada.step(request, "validation_finale")["url"], {})
        _eventually(lambda: ada.requests()[0]["status"] == "REQUEST_STATUS_DONE")

        answers = ada.data("GET", "/api/v1/surveys/data")
        assert answers[0]["invite_nom"] == "Emmy Noether"
        csv = ada.send("GET", "/api/v1/surveys/data?format=csv")
        assert csv.headers["content-type"].startswith("text/csv")
        assert "Emmy Noether" in csv.text
        pdf = ada.send("GET", "/api/v1/surveys/pdf", params={"record_id": request})
        assert pdf.content.startswith(b"%PDF-"), pdf.text[:500]
        assert pdf.headers["content-disposition"].startswith("attachment")
        ada.data("POST", "/api/v1/auth/logout")
        assert ada.send("GET", "/api/v1/me").status_code == 401


def _eventually(holds: Any) -> None:
    for _ in range(PATIENCE):
        if holds():
            return
        _pause()
    raise AssertionError("it did not come true within 30 s")


def main() -> None:
    """Complete the whole flow once on the mesh of a ready file."""
    ready = json.loads(Path(sys.argv[1]).read_text())
    whole_way(ready, f"ada.{uuid.uuid4().hex[:8]}@example.org")
    print("A researcher went the whole way: sign-up to finished request, data, PDF, sign-out.")


if __name__ == "__main__":
    main()
