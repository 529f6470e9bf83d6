"""A researcher goes the whole way through a running mesh."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.integration.researcher import INVITES_FOR_RESEARCH, Researcher, whole_way

pytestmark = pytest.mark.xdist_group("live")


def test_whole_way(live: Any) -> None:
    """
    From sign-up to a finished request with two opinions, its data, its PDF and sign-out.
    """
    whole_way(live, "ada@example.org")


def test_nothing_personal_is_logged(live: Any) -> None:
    """
    No address, secret, token, cookie or answer appears in the output of any process.
    """
    with Researcher(live, "planted.canary@example.org") as canary:
        canary.sign_in()
        query = parse_qs(urlsplit(canary.mailed_link()).query)
        request = canary.create()
        link = canary.step(request, "form")["url"]
        canary.fill(link, INVITES_FOR_RESEARCH)
        canary.requests()
        canary.send("GET", "/api/v1/surveys/pdf", params={"record_id": request})
        canary.send("POST", "/api/v1/auth/login", json={"userId": "zz", "secret": "planted5ecret"})
        session = canary.session
        canary.data("POST", "/api/v1/auth/logout")
        canary.send("GET", "/api/v1/me")
    planted = {
        "address": "planted.canary",
        "link secret": query["secret"][0],
        "refused secret": "planted5ecret",
        "cookie": session,
        "user token": "eyJhbGciOi",
        "survey hash": link.rpartition("=")[2],
        "answer": "Emmy Noether",
        "token of REDCap": live["sandbox"]["token"],
    }

    data = Path(live["pki"]["ca"]).parents[2]
    logs = sorted((data / "logs").glob("*.log"))
    assert len(logs) >= 6
    assert all(log.stat().st_size for log in logs if log.stem in {"survey", "auth", "gateway"})
    leaks = [
        f"{what} in {log.name}"
        for log in logs
        for what, value in planted.items()
        if value in log.read_text(errors="replace")
    ]
    assert [] == leaks
