"""The reference page of settings."""

import re

import pytest

from auth_svc.config import AuthSettings
from gateway.config import GatewaySettings
from health_svc.config import HealthSettings
from mesh.chassis.config import EnvironmentSettings
from mesh.console.settings import ConsoleSettings
from mesh.render.reference import settings
from survey_svc.config import SurveySettings

PAGE = settings.render()["settings.md"]


@pytest.mark.parametrize(
    "kind", [AuthSettings, SurveySettings, HealthSettings, GatewaySettings, ConsoleSettings]
)
def test_complete(kind: type[EnvironmentSettings]) -> None:
    """
    Every setting of every process is on the page.
    """
    named = set(re.findall(r"^\| `AMARRE_(\w+)` \|", PAGE, re.MULTILINE))

    assert {name.upper() for name in kind.model_fields} <= named


@pytest.mark.parametrize(
    "row",
    [
        "| `AMARRE_AUTH_DATABASE` | required | `sqlite",
        "| `AMARRE_AUTH_SESSION_IDLE` | `12h` | ",
        "| `AMARRE_GATEWAY_QUEUE_TARGET` | `50ms` | ",
        "| `AMARRE_HEALTH_ALLOW_PRIVATE` | `false` | ",
        "| `AMARRE_HEALTH_BACKENDS` | – | ",
        "| `AMARRE_ALLOWED_EMAIL_DOMAINS` | `example.org` | ",
        "| The minimum log level. Values: `DEBUG`, `INFO`, `WARNING`, `ERROR`. |",
        "in flight; more are refused with 429. Valid: at least `1`. |",
    ],
)
def test_rows(row: str) -> None:
    """
    Defaults are written as a variable holds them, with the values and bounds that are accepted.
    """
    assert row in PAGE
