"""
Prometheus rules from the contracts: recording rules, alerts and their unit tests.

    pace        durations, which tests scale down
    recording   recording rules for dashboards and alerts, per method
    slo         alerts on the error budgets of the contracts
    mesh        alerts on processes, proxies, certificates
    outside     alerts on dependencies and hosts
    causes      alerts that name a cause: a proxy, the clock, retries, a canary, a slow dependency
    watchers    alerts on monitoring itself, and the heartbeat
    scraping    scrape configuration
    cases       for each alert, a test in which it fires and one in which it does not
"""

from collections.abc import Iterable
from typing import Any

from mesh.contract import policy
from mesh.contract.policy import Mesh
from mesh.render.rules import causes, mesh, outside, recording, scraping, slo, watchers
from mesh.render.rules.alert import Alert
from mesh.render.rules.cases import case_file
from mesh.render.rules.pace import REAL, Pace
from mesh.render.yaml_text import document
from mesh.topology import RUNBOOKS

Files = dict[str, str]
WATCHERS = "watchers"

_TITLES = {
    "slo": "Alerts on the objectives of the contracts.",
    "mesh": "Alerts on the processes, proxies and certificates of the mesh.",
    "outside": "Alerts on dependencies and hosts.",
    "watchers": "Alerts on monitoring itself, and the heartbeat that always fires.",
    "causes": "Alerts that name a cause: a proxy, the clock, retries, a canary, a slow dependency.",
}


def render(runbooks: str = RUNBOOKS) -> Files:
    """Return the rules, their tests and the configuration of Prometheus."""
    contract = policy.load()
    return (
        rule_files(contract, runbooks=runbooks, watchers=True)
        | {"prometheus.yaml": scraping.configuration()}
        | {
            f"tests/{group}.yaml": case_file(group, alerts, runbooks)
            for group, alerts in alerts_of(contract).items()
        }
    )


def rule_files(
    contract: Mesh, pace: Pace = REAL, *, runbooks: str = RUNBOOKS, watchers: bool = False
) -> Files:
    """
    Return the rule files, without the tests of the rules.

    Args:
        contract: The contracts.
        pace: Scales the durations down.
        runbooks: Base URL of the runbook links.
        watchers: Whether to include alerts on monitoring itself, which a local mesh does not need.
    """
    files = {
        "rules/recording.yaml": document(
            "Recording rules for alerts and dashboards. Rendered from the contracts.",
            {"groups": recording.groups(contract, pace)},
        )
    }
    for group, alerts in alerts_of(contract, pace).items():
        if group == WATCHERS and not watchers:
            continue
        files[f"rules/{group}.yaml"] = document(
            f"{_TITLES[group]} Rendered from the contracts.",
            {"groups": [_group(group, alerts, pace, runbooks)]},
        )
    return files


def alerts_of(contract: Mesh, pace: Pace = REAL) -> dict[str, tuple[Alert, ...]]:
    """Return every alert by its file."""
    return {
        "slo": tuple(slo.alerts(contract, pace)),
        "mesh": tuple(mesh.alerts(pace)),
        "outside": tuple(outside.alerts(pace)),
        WATCHERS: tuple(watchers.alerts(pace)),
        "causes": tuple(causes.alerts(pace)),
    }


def _group(name: str, alerts: Iterable[Alert], pace: Pace, runbooks: str) -> dict[str, Any]:
    return {
        "name": f"amarre-{name}",
        "interval": pace(minutes=0.25),
        "rules": [alert.rule(pace, runbooks) for alert in alerts],
    }
