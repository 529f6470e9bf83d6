"""An alert: when it fires, what it says, and two stories that test it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mesh.render.rules.pace import Pace

_VALUE = re.compile(r"\{\{ \$value[^}]*\}\}")
_LABEL = re.compile(r"\{\{ \$labels\.(\w+) \}\}")


class Severity(StrEnum):
    """Who hears of it: somebody now, the team by day, or a machine that expects it always."""

    CRITICAL = "critical"
    WARNING = "warning"
    HEARTBEAT = "heartbeat"


class Team(StrEnum):
    """Whose it is."""

    MESH = "mesh"
    IDENTITY = "identity"
    SURVEYS = "surveys"
    SECURITY = "security"
    HOSTS = "hosts"


Series = Mapping[str, str]
"""Series by their PromQL name, values in promtool's notation, one a minute."""


@dataclass(frozen=True)
class Fires:
    """
    A story in which the alert fires.

    Args:
        series: What is measured.
        at: The minute at which it fires.
        labels: The labels of the alert then, besides severity and team.
        value: How its value is written in the texts.
    """

    series: Series
    at: int
    labels: Mapping[str, str] = field(default_factory=dict)
    value: str = ""


@dataclass(frozen=True)
class Quiet:
    """A story near to it in which the alert stays quiet."""

    series: Series
    at: int


@dataclass(frozen=True)
class Alert:
    """
    One alerting rule.

    Args:
        minutes: How long its condition must hold.
        service: The service that it is about, where the expression has no label ``service``;
            inhibition compares it.
        keeps_firing: Minutes for which it goes on after its condition, so that a cause outlasts
            the effects that it keeps quiet.
        also: Other stories in which it fires, where several series tell of one cause.
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
    """None: it always fires."""
    service: str = ""
    keeps_firing: float = 0
    also: tuple[Fires, ...] = ()

    @property
    def page(self) -> str:
        """The file name of its runbook, ``service-down.md``."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", self.name).lower() + ".md"

    @property
    def labels(self) -> dict[str, str]:
        """What Alertmanager routes and inhibits by."""
        found = {"severity": str(self.severity), "team": str(self.team)}
        return found | ({"service": self.service} if self.service else {})

    def rule(self, pace: Pace, runbooks: str) -> dict[str, Any]:
        """Return the rule as Prometheus reads it; its link leads below *runbooks*."""
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
        """Return the alert that *story* ends with, as promtool expects it."""
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
