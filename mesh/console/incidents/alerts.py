"""
Alerts that the console evaluates itself, with or without Prometheus.

Names and conditions are those of the Prometheus rules, over shorter windows: the console evaluates
every few seconds and does not have to wait for two missed scrapes.
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
"""Alerts that the console evaluates from fresher data than Prometheus, which clears them later."""


def evaluate(db: sqlite3.Connection, situation: Situation) -> list[Alert]:
    """Return the firing alerts, most severe first."""
    counted = read(db, situation)
    return worst_first(
        [
            *process_alerts.alerts(situation, counted),
            *dependency_alerts.alerts(situation, counted),
            *call_alerts.alerts(situation, counted, db),
        ]
    )


def worst_first(alerts: Iterable[Alert]) -> list[Alert]:
    """Return the alerts without duplicates, most severe first."""
    return sorted(dict.fromkeys(alerts), key=lambda one: one.severity != "page")
