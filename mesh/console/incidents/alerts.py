"""
Alerts that the console evaluates itself, whether a Prometheus is running or not.

Names are those of the Prometheus rules. Conditions are the same, over shorter windows: the console
looks every few seconds and need not wait for a scrape of its own to be missed twice.
"""

import sqlite3
from collections.abc import Iterable

from mesh.console.incidents import call_alerts, dependency_alerts, process_alerts
from mesh.console.incidents.alert import Alert, Situation, read

OWN = frozenset(
    {
        *("ServiceDown", "ProxyDown", "RedcapFailing", "RedcapSlow", "MailFailing"),
        *("AppwriteFailing", "DatabaseSlow", "CanaryFailing"),
    }
)
"""Alerts that the console evaluates from fresher data than Prometheus, which keeps them longer."""


def evaluate(db: sqlite3.Connection, situation: Situation) -> list[Alert]:
    """Return what is wrong now, worst first."""
    counted = read(db, situation)
    return worst_first(
        [
            *process_alerts.alerts(situation, counted),
            *dependency_alerts.alerts(situation, counted),
            *call_alerts.alerts(situation, counted, db),
        ]
    )


def worst_first(alerts: Iterable[Alert]) -> list[Alert]:
    """Return alerts by severity, each once."""
    return sorted(dict.fromkeys(alerts), key=lambda one: one.severity != "page")
