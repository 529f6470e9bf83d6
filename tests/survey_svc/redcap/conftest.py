"""A fake REDCap that returns given responses, and the adapter on it."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from pydantic import SecretStr

from survey_svc.redcap.client import RedcapApi
from survey_svc.redcap.project import RedcapProject
from survey_svc.study.profile import Profile

TOKEN = "0123456789ABCDEF0123456789ABCDEF"
HTML = "<!DOCTYPE html><html><body>REDCap is in maintenance</body></html>"
GOOD = {"record_id": "r1", "userid": "ada", "created_at": "2026-01-01"} | dict.fromkeys(
    (
        *("form_complete", "validation_finale_complete", "demandeur_composante_complete"),
        *("labo_complete", "encadrant_complete"),
    ),
    "0",
)
PDF = b"%PDF-1.7\n%%EOF\n"


class Redcap:
    """Returns the given responses in turn, repeating the last one."""

    def __init__(self) -> None:
        self.answers: list[httpx.Response] = []
        self.asked: list[dict[str, str]] = []
        self.urls: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.urls.append(str(request.url))
        body = parse_qs(request.content.decode(), keep_blank_values=True)
        self.asked.append({name: values[0] for name, values in body.items()})
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def redcap() -> Redcap:
    """The fake REDCap."""
    return Redcap()


@pytest.fixture
async def project(redcap: Redcap, profile: Profile) -> AsyncIterator[RedcapProject]:
    """The adapter on the fake."""
    api = RedcapApi(
        "http://redcap.test/api/", SecretStr(TOKEN), transport=httpx.MockTransport(redcap)
    )
    yield RedcapProject(api, profile)
    await api.close()


def json_response(value: Any, status: int = 200) -> httpx.Response:
    """Return a response with a JSON body."""
    return httpx.Response(status, json=value)
