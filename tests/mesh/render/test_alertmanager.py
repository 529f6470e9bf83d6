"""Who hears of which alert, judged by Alertmanager's own tool."""

import itertools
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from mesh.contract import policy
from mesh.render import alertmanager, registry, rules
from mesh.render.rules.alert import Severity, Team

AMTOOL = shutil.which("amtool")
FILES = alertmanager.render()
CONFIGURATION = yaml.safe_load(FILES["alertmanager.yaml"])
ALERTS = {alert.name: alert for group in rules.alerts_of(policy.load()).values() for alert in group}
needs_amtool = pytest.mark.skipif(
    AMTOOL is None, reason="amtool is missing: apt-get install prometheus-alertmanager"
)


def amtool(folder: Path, *arguments: str) -> str:
    assert AMTOOL is not None
    registry.write(FILES, folder)
    return subprocess.run(
        [AMTOOL, *arguments], capture_output=True, text=True, cwd=folder, timeout=60, check=True
    ).stdout


@needs_amtool
def test_valid(tmp_path: Path) -> None:
    """
    Alertmanager accepts the configuration and its texts.
    """
    assert "1 templates" in amtool(tmp_path, "check-config", "alertmanager.yaml")


@needs_amtool
@pytest.mark.parametrize(
    ("team", "severity"),
    [pytest.param(t, s, id=f"{t}, {s}") for t, s in itertools.product(Team, Severity)],
)
def test_routes(team: Team, severity: Severity, tmp_path: Path) -> None:
    """
    Each team hears of its own alerts; what is critical goes to whoever is on call.
    """
    receiver = amtool(
        tmp_path,
        *("config", "routes", "test", "--config.file=alertmanager.yaml"),
        *(f"team={team}", f"severity={severity}"),
    )

    on_call = severity is Severity.CRITICAL
    assert [f"{team}-on-call" if on_call else str(team)] == receiver.split("\n")[:1]


def test_receivers() -> None:
    """
    By day there is a mail; on call there are mail, chat and webhook, each with its end.
    """
    by_day, on_call = CONFIGURATION["receivers"][:2]

    assert {"name", "email_configs"} == set(by_day)
    assert {"name", "email_configs", "webhook_configs", "slack_configs"} == set(on_call)
    for kind in ("email_configs", "webhook_configs", "slack_configs"):
        assert all(each["send_resolved"] for each in on_call[kind])


def test_secrets() -> None:
    """
    The configuration holds no secret, only the files in which they stand.
    """
    text = FILES["alertmanager.yaml"]

    assert {"smtp-password", "slack-url", "webhook-token"} == {
        word.rpartition("/")[2] for word in text.split() if "/secrets/" in word
    }


def test_inhibitions() -> None:
    """
    What keeps others quiet is an alert that there is.
    """
    sources = {
        matcher.partition("=")[2].strip('"')
        for rule in CONFIGURATION["inhibit_rules"]
        for matcher in rule["source_matchers"]
    }

    assert sources <= set(ALERTS)


def test_committed() -> None:
    """
    The committed files are what is rendered today.
    """
    assert [] == registry.drift(FILES, registry.committed("alertmanager"))
