"""
Prometheus rules from the contracts: what is recorded, what wakes somebody up, and the proof.

    pace        windows, which tests run faster
    recording   what dashboards and alerts share, method by method
    slo         alerts on the error budgets that the contracts promise
    mesh        alerts on processes, proxies, certificates
    outside     alerts on what the mesh depends on, and on its hosts
    causes      alerts that name a cause: a proxy, the clock, retries, a canary, a slow dependency
    watchers    alerts on monitoring itself, and the heartbeat
    scraping    where Prometheus looks
    cases       for each alert a story in which it fires and one in which it does not
"""

from collections.abc import Iterable
from typing import Any

from mesh.contract import policy
from mesh.contract.policy import Mesh
from mesh.render.envoy.text import document
from mesh.render.rules import causes, mesh, outside, recording, scraping, slo, watchers
from mesh.render.rules.alert import Alert
from mesh.render.rules.cases import case_file
from mesh.render.rules.pace import REAL, Pace
from mesh.topology import RUNBOOKS

Files = dict[str, str]
WATCHERS = "watchers"

_TITLES = {
    "slo": "Alerts on the objectives that the contracts promise.",
    "mesh": "Alerts on the processes, proxies and certificates of the mesh.",
    "outside": "Alerts on what the mesh depends on, and on its hosts.",
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
        pace: How much faster than in production.
        runbooks: Alerts link to the pages below this address.
        watchers: Whether monitoring watches itself; on a laptop nobody expects a heartbeat.
    """
    files = {
        "rules/recording.yaml": document(
            "What alerts and dashboards share. Made from the contracts.",
            {"groups": recording.groups(contract, pace)},
        )
    }
    for group, alerts in alerts_of(contract, pace).items():
        if group == WATCHERS and not watchers:
            continue
        files[f"rules/{group}.yaml"] = document(
            f"{_TITLES[group]} Made from the contracts.",
            {"groups": [_group(group, alerts, pace, runbooks)]},
        )
    return files


def alerts_of(contract: Mesh, pace: Pace = REAL) -> dict[str, tuple[Alert, ...]]:
    """Return every alert by the file that it stands in."""
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
