"""The table of alert names: those of the Prometheus rules, with severity and runbook."""

import functools
from collections.abc import Mapping

from mesh.contract import policy
from mesh.render.rules import alerts_of
from mesh.render.rules.alert import Alert as Rule
from mesh.render.rules.alert import Severity


@functools.cache
def rules() -> Mapping[str, Rule]:
    """Return every rule by its name."""
    return {rule.name: rule for group in alerts_of(policy.load()).values() for rule in group}


def severity(name: str) -> str:
    """Return the severity of the alert *name*: ``page`` or ``ticket``."""
    return "page" if rules()[name].severity is Severity.CRITICAL else "ticket"


def runbook(name: str) -> str:
    """Return the file name of the runbook for the alert *name*."""
    return rules()[name].page
