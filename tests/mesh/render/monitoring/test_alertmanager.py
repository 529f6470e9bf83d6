"""Alert routing, evaluated by Alertmanager's own tool."""

import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from mesh.contract import policy
from mesh.render import registry, rules
from mesh.render.rules import alertmanager
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
    Alertmanager accepts the configuration and its templates.
    """
    assert "1 templates" in amtool(tmp_path, "check-config", "alertmanager.yaml")


@needs_amtool
@pytest.mark.parametrize(
    ("team", "severity"),
    [
        pytest.param(team, severity, id=f"{team}, {severity}")
        for team, severity in itertools.product(Team, Severity)
        if severity is not Severity.HEARTBEAT
    ],
)
def test_routes(team: Team, severity: Severity, tmp_path: Path) -> None:
    """
    Each team receives its own alerts; critical ones page.
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
    Tickets are mailed; pages go to mail, chat and webhook, with notices when they resolve.
    """
    by_day, on_call = CONFIGURATION["receivers"][:2]

    assert {"name", "email_configs"} == set(by_day)
    assert {"name", "email_configs", "webhook_configs", "slack_configs"} == set(on_call)
    for kind in ("email_configs", "webhook_configs", "slack_configs"):
        assert all(each["send_resolved"] for each in on_call[kind])


def test_secrets() -> None:
    """
    The configuration contains no secrets, only the files that contain them.
    """
    text = FILES["alertmanager.yaml"]

    assert {"smtp-password", "slack-url", "webhook-token"} == {
        word.rpartition("/")[2] for word in text.split() if "/secrets/" in word
    }


def test_inhibitions() -> None:
    """
    Inhibition rules refer to existing alerts.
    """
    named = {
        name
        for rule in alertmanager.INHIBITIONS
        for name in f"{rule.cause}|{rule.effects}".split("|")
    }

    assert named <= set(ALERTS)


def quiet(cause: dict[str, str], effect: dict[str, str]) -> bool:
    """Return whether *cause* inhibits *effect*, as Alertmanager evaluates it."""

    def matches(matchers: list[str], labels: dict[str, str]) -> bool:
        pairs = (matcher.split("=~") for matcher in matchers)
        return all(re.fullmatch(text.strip('"'), labels.get(name, "")) for name, text in pairs)

    return any(
        matches(rule["source_matchers"], cause)
        and matches(rule["target_matchers"], effect)
        and all(cause.get(name) == effect.get(name) for name in rule.get("equal", ()))
        for rule in CONFIGURATION["inhibit_rules"]
    )


@pytest.mark.parametrize(
    ("cause", "effect", "expected"),
    [
        ("ServiceDown survey", "ErrorsAboveFivePercent survey", True),
        ("ServiceDown survey", "AvailabilityBudgetBurnsFast survey", True),
        ("ServiceDown survey", "GatewayErrors gateway", True),
        ("ServiceDown survey", "ErrorsAboveFivePercent auth", False),
        ("ServiceDown survey", "ProxyDown survey", True),
        ("ServiceDown survey", "ProxyDown gateway", False),
        ("ProxyDown survey", "ServiceDown survey", False),
        ("ProxyDown survey", "ErrorsAboveFivePercent survey", True),
        ("ProxyDown gateway", "GatewayErrors gateway", True),
        ("ProxyDown gateway", "BreakerOpen gateway", True),
        ("ProxyDown survey", "BreakerOpen gateway", False),
        ("ServiceDown survey", "RedcapBreakerOpen survey", True),
        ("RedcapFailing survey", "RedcapBreakerOpen survey", False),
        ("RedcapBreakerOpen survey", "RedcapFailing survey", True),
        ("RedcapFailing survey", "LatencyBudgetBurnsFast survey", True),
        ("RedcapFailing survey", "ServiceDown survey", False),
        ("RedcapFailing survey", "CallersRefused survey", False),
        ("RedcapFailing survey", "ServiceSaturated survey", False),
        ("RedcapFailing survey", "ErrorsAboveFivePercent auth", False),
        ("AppwriteFailing auth", "ErrorsAboveFivePercent auth", True),
        ("AppwriteFailing auth", "ErrorsAboveFivePercent survey", False),
        ("LatencyBudgetBurnsFast survey", "MethodAboveOneSecond survey", True),
        ("ErrorsAboveFivePercent survey", "AvailabilityBudgetBurnsFast survey", True),
        ("AvailabilityBudgetBurnsFast survey", "ErrorsAboveFivePercent survey", False),
    ],
)
def test_one_page_per_cause(cause: str, effect: str, expected: bool) -> None:
    """
    A cause inhibits the effects that it explains, in its own service, and no other alert.
    """
    labels = [
        dict(zip(("alertname", "service"), alert.split(), strict=True)) for alert in (cause, effect)
    ]

    assert expected is quiet(*labels)


def test_hosts() -> None:
    """
    A busy host explains slow processes only on that host.
    """
    busy = {"alertname": "HostCpuHigh", "host": "a"}

    assert quiet(busy, {"alertname": "EventLoopLate", "host": "a"})
    assert not quiet(busy, {"alertname": "EventLoopLate", "host": "b"})
    assert not quiet(busy, {"alertname": "EventLoopLate"})


def test_causes_last() -> None:
    """
    An alert that inhibits others of the same service ends after them, so that resolved faults do
    not page.
    """
    for rule in alertmanager.INHIBITIONS:
        if "GatewayErrors" not in rule.effects and rule.equal != ("service",):
            continue
        for name in rule.cause.split("|"):
            assert ALERTS[name].keeps_firing >= 5, name


@needs_amtool
def test_heartbeat(tmp_path: Path) -> None:
    """
    The heartbeat is sent every minute to the service that expects it, and pages nobody.
    """
    receiver = amtool(
        tmp_path,
        *("config", "routes", "test", "--config.file=alertmanager.yaml"),
        *("alertname=Watchdog", "team=mesh", "severity=heartbeat"),
    )
    route = CONFIGURATION["route"]["routes"][0]

    assert "heartbeat" == receiver.strip()
    assert ("heartbeat", "1m") == (route["receiver"], route["repeat_interval"])
    (heartbeat,) = [r for r in CONFIGURATION["receivers"] if "heartbeat" == r["name"]]
    assert {"name", "webhook_configs"} == set(heartbeat)


def test_committed() -> None:
    """
    The committed files are up to date.
    """
    assert [] == registry.drift(FILES, registry.committed("alertmanager"))
