"""
Alertmanager: who hears of which alert, how soon, and what is kept quiet beside a worse one.

Each team has two receivers: by day a mail, on call also a chat and a webhook. Secrets stand in
files that the configuration names.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from mesh.render.envoy.text import document
from mesh.render.rules.alert import Severity, Team
from mesh.render.rules.pace import REAL, Pace

Files = dict[str, str]
TEMPLATES = "amarre.tmpl"


@dataclass(frozen=True)
class Delivery:
    """
    How alerts reach people.

    Args:
        smtp: The mail server, HOST:PORT.
        domain: Where the teams have their addresses: ``mesh@DOMAIN``.
        webhook: What pages the one on call; empty means nothing does.
        secrets: The folder of ``smtp-password``, ``slack-url`` and ``webhook-token``; none means
            a mail server and a webhook on this machine that ask for nothing, and no chat.
    """

    smtp: str
    domain: str
    webhook: str = ""
    secrets: PurePosixPath | None = None


PRODUCTION = Delivery(
    smtp="mail.example.org:587",
    domain="example.org",
    webhook="https://on-call.example.org/alerts",
    secrets=PurePosixPath("/etc/alertmanager/secrets"),
)

_INHIBITIONS = (
    ('alertname="AvailabilityBudgetBurnsFast"', 'alertname="AvailabilityBudgetBurnsSlowly"', True),
    ('alertname="LatencyBudgetBurnsFast"', 'alertname="LatencyBudgetBurnsSlowly"', True),
    ('alertname="MethodAboveOneSecond"', 'alertname="MethodSlowerThanPromised"', True),
    # What follows from a backend that is away is no news.
    ('alertname="RedcapFailing"', 'service="survey"', False),
    ('alertname="RedcapBreakerOpen"', 'service="survey"', False),
    ('alertname="AppwriteFailing"', 'service="auth"', False),
    ('alertname="HostCpuHigh"', 'alertname=~"ProcessCpuHigh|EventLoopLate"', False),
)
"""Which alert keeps which others quiet, and whether only for the same method."""


def render() -> Files:
    """Return the configuration for production and the texts of messages."""
    return {"alertmanager.yaml": configuration(PRODUCTION), TEMPLATES: texts()}


def configuration(delivery: Delivery, pace: Pace = REAL) -> str:
    """Return the configuration of Alertmanager; `texts` stand in ``amarre.tmpl`` beside it."""
    return document(
        "Who hears of which alert. Made by `amarre render alertmanager`.",
        {
            "global": _global(delivery),
            "templates": [TEMPLATES],
            "route": {
                "receiver": str(Team.MESH),
                "group_by": ["alertname", "team", "service", "workload"],
                "group_wait": pace(minutes=0.5),
                "group_interval": pace(minutes=5),
                "repeat_interval": pace(minutes=12 * 60),
                "routes": [_route(team, pace) for team in Team],
            },
            "inhibit_rules": [
                {
                    "source_matchers": [source],
                    "target_matchers": [target],
                    **({"equal": ["service", "method"]} if same else {}),
                }
                for source, target, same in _INHIBITIONS
            ],
            "receivers": [
                receiver
                for team in Team
                for receiver in (_by_day(team, delivery), _on_call(team, delivery))
            ],
        },
    )


def _global(delivery: Delivery) -> dict[str, Any]:
    common: dict[str, Any] = {
        "smtp_smarthost": delivery.smtp,
        "smtp_from": f"amarre-alerts@{delivery.domain}",
        "smtp_require_tls": delivery.secrets is not None,
    }
    if delivery.secrets:
        common |= {
            "smtp_auth_username": f"amarre-alerts@{delivery.domain}",
            "smtp_auth_password_file": str(delivery.secrets / "smtp-password"),
            "slack_api_url_file": str(delivery.secrets / "slack-url"),
        }
    return common


def _route(team: Team, pace: Pace) -> dict[str, Any]:
    return {
        "matchers": [f'team="{team}"'],
        "receiver": str(team),
        "routes": [
            {
                "matchers": [f'severity="{Severity.CRITICAL}"'],
                "receiver": f"{team}-on-call",
                "repeat_interval": pace(minutes=60),
            }
        ],
    }


def _by_day(team: Team, delivery: Delivery) -> dict[str, Any]:
    return {"name": str(team), "email_configs": [_mail(team, delivery)]}


def _on_call(team: Team, delivery: Delivery) -> dict[str, Any]:
    receiver: dict[str, Any] = {
        "name": f"{team}-on-call",
        "email_configs": [_mail(team, delivery)],
    }
    if delivery.webhook:
        webhook: dict[str, Any] = {"url": delivery.webhook, "send_resolved": True}
        if delivery.secrets:
            webhook["http_config"] = {
                "authorization": {"credentials_file": str(delivery.secrets / "webhook-token")}
            }
        receiver["webhook_configs"] = [webhook]
    if delivery.secrets:
        receiver["slack_configs"] = [
            {
                "channel": f"#amarre-{team}",
                "send_resolved": True,
                "title": '{{ template "amarre.subject" . }}',
                "text": '{{ template "amarre.text" . }}',
            }
        ]
    return receiver


def _mail(team: Team, delivery: Delivery) -> dict[str, Any]:
    return {
        "to": f"{team}@{delivery.domain}",
        "send_resolved": True,
        "headers": {"Subject": '{{ template "amarre.subject" . }}'},
        "html": "",
        "text": '{{ template "amarre.text" . }}',
    }


def texts() -> str:
    """Return the texts of messages, for every receiver the same."""
    return """\
{{/* The texts of messages. Made by `amarre render alertmanager`. */}}
{{ define "amarre.subject" -}}
[{{ if eq .Status "firing" }}{{ .CommonLabels.severity }}{{ else }}over{{ end }}] \
{{ .GroupLabels.alertname }}{{ with .GroupLabels.service }} {{ . }}{{ end }}\
{{ with .GroupLabels.workload }} {{ . }}{{ end }}
{{- end }}
{{ define "amarre.text" -}}
{{ range .Alerts }}{{ .Annotations.summary }}
{{ .Annotations.description }}
Since {{ .StartsAt.Format "2006-01-02 15:04:05 MST" }}\
{{ if eq .Status "resolved" }}, over at {{ .EndsAt.Format "15:04:05 MST" }}{{ end }}.
What to do: {{ .Annotations.runbook_url }}

{{ end }}
{{- end }}
"""
