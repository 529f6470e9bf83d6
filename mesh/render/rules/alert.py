"""An alert: condition, texts and unit tests."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mesh.render.rules.pace import Pace

_VALUE = re.compile(r"\{\{ \$value[^}]*\}\}")
_LABEL = re.compile(r"\{\{ \$labels\.(\w+) \}\}")


class Severity(StrEnum):
    """The severity: a page, a ticket, or the heartbeat."""

    CRITICAL = "critical"
    WARNING = "warning"
    HEARTBEAT = "heartbeat"


class Team(StrEnum):
    """The responsible team."""

    MESH = "mesh"
    IDENTITY = "identity"
    SURVEYS = "surveys"
    SECURITY = "security"
    HOSTS = "hosts"


Series = Mapping[str, str]
"""Series by PromQL selector; values in promtool's notation, one per minute."""


@dataclass(frozen=True)
class Fires:
    """
    A test in which the alert fires.

    Args:
        series: The input series.
        at: The minute at which it must fire.
        labels: The expected labels, besides severity and team.
        value: The formatted value in the texts.
    """

    series: Series
    at: int
    labels: Mapping[str, str] = field(default_factory=dict)
    value: str = ""


@dataclass(frozen=True)
class Quiet:
    """A similar test in which the alert must not fire."""

    series: Series
    at: int


@dataclass(frozen=True)
class Alert:
    """
    One alerting rule.

    Args:
        minutes: The ``for`` duration.
        service: The affected service, if the expression has no label ``service``; used by
            inhibition.
        keeps_firing: Minutes for which it continues to fire after its condition, so that a cause
            outlasts its effects.
        also: Further tests in which it fires, if several series show the same cause.
    """

    name: str
    expr: str
    minutes: float
    severity: Severity
    team: Team
    summary: str
    description: str
    fires: Fires
    quiet: Quiet | None
    """None if it always fires."""
    service: str = ""
    keeps_firing: float = 0
    also: tuple[Fires, ...] = ()

    @property
    def page(self) -> str:
        """The file name of the runbook, ``service-down.md``."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", self.name).lower() + ".md"

    @property
    def labels(self) -> dict[str, str]:
        """The labels for routing and inhibition."""
        found = {"severity": str(self.severity), "team": str(self.team)}
        return found | ({"service": self.service} if self.service else {})

    def rule(self, pace: Pace, runbooks: str) -> dict[str, Any]:
        """Return the Prometheus rule; its runbook link starts with *runbooks*."""
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": pace(minutes=self.minutes),
            **({"keep_firing_for": pace(minutes=self.keeps_firing)} if self.keeps_firing else {}),
            "labels": self.labels,
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{runbooks}/{self.page}",
            },
        }

    def expected(self, story: Fires, runbooks: str) -> dict[str, Any]:
        """Return the alert that promtool must expect from *story*."""
        return {
            "exp_labels": {
                **{name: _filled(text, story) for name, text in self.labels.items()},
                **story.labels,
            },
            "exp_annotations": {
                "summary": _filled(self.summary, story),
                "description": _filled(self.description, story),
                "runbook_url": f"{runbooks}/{self.page}",
            },
        }


def _filled(text: str, story: Fires) -> str:
    text = _LABEL.sub(lambda found: story.labels.get(found[1], ""), text)
    return _VALUE.sub(story.value, text)
