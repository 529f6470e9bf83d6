"""
Alertmanager configuration: routing, timing and inhibition.

Each team has two receivers: mail for tickets; mail, chat and a webhook for pages. Secrets are
referenced as files.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from mesh.render.rules.alert import Severity, Team
from mesh.render.rules.pace import REAL, Pace
from mesh.render.yaml_text import document

Files = dict[str, str]
TEMPLATES = "amarre.tmpl"
HEARTBEAT = "heartbeat"


@dataclass(frozen=True)
class Delivery:
    """
    How alerts are delivered.

    Args:
        smtp: The mail server, HOST:PORT.
        domain: Mail domain of the teams: ``mesh@DOMAIN``.
        webhook: URL that pages the engineer on call; empty for none.
        heartbeat: URL that receives the alert Watchdog every minute and pages when it stops.
        secrets: The folder of ``smtp-password``, ``slack-url`` and ``webhook-token``; None for
            a local mail server and webhook without authentication, and no chat.
    """

    smtp: str
    domain: str
    webhook: str = ""
    heartbeat: str = ""
    secrets: PurePosixPath | None = None


PRODUCTION = Delivery(
    smtp="mail.example.org:587",
    domain="example.org",
    webhook="https://on-call.example.org/alerts",
    heartbeat="https://on-call.example.org/heartbeat",
    secrets=PurePosixPath("/etc/alertmanager/secrets"),
)

_BURNS = "AvailabilityBudgetBurnsFast|AvailabilityBudgetBurnsSlowly"
_SLOW = (
    "LatencyBudgetBurnsFast|LatencyBudgetBurnsSlowly|MethodAboveOneSecond|MethodSlowerThanPromised"
)
_METHOD, _SERVICE, _HOST = ("service", "method"), ("service",), ("host",)


class Inhibition(NamedTuple):
    """
    A cause and the effects that it inhibits.

    Args:
        cause: The alerts of the cause, as a regular expression.
        effects: The alerts of the effects.
        equal: Labels that must be equal: the same service, method or host.
    """

    cause: str
    effects: str
    equal: tuple[str, ...] = ()


INHIBITIONS = (
    Inhibition("AvailabilityBudgetBurnsFast", "AvailabilityBudgetBurnsSlowly", _METHOD),
    Inhibition("LatencyBudgetBurnsFast", _SLOW.partition("|")[2], _METHOD),
    Inhibition("MethodAboveOneSecond", "MethodSlowerThanPromised", _METHOD),
    Inhibition("ErrorsAboveFivePercent", _BURNS, _SERVICE),
    # A failed dependency or process explains errors and latency only of its own service.
    Inhibition(
        "ServiceDown|ProxyDown|RedcapFailing|RedcapBreakerOpen|AppwriteFailing",
        f"ErrorsAboveFivePercent|{_BURNS}|{_SLOW}",
        _SERVICE,
    ),
    Inhibition("ServiceDown", "RedcapBreakerOpen", _SERVICE),
    # The breaker opens before the share of failures is known.
    Inhibition("RedcapBreakerOpen", "RedcapFailing", _SERVICE),
    # When a proxy that hung continues, the requests that waited arrive at once.
    Inhibition("ProxyDown", "BreakerOpen", _SERVICE),
    # A failed pod or host takes down both.
    Inhibition("ServiceDown", "ProxyDown", _SERVICE),
    # The gateway returns the errors of every service.
    Inhibition(
        "ServiceDown|ProxyDown|RedcapFailing|RedcapBreakerOpen|AppwriteFailing"
        "|ErrorsAboveFivePercent",
        "GatewayErrors",
    ),
    Inhibition("HostCpuHigh", "ProcessCpuHigh|EventLoopLate", _HOST),
)
"""Inhibition rules, for one page per cause."""


def render() -> Files:
    """Return the production configuration and the message templates."""
    return {"alertmanager.yaml": configuration(PRODUCTION), TEMPLATES: texts()}


def configuration(delivery: Delivery, pace: Pace = REAL) -> str:
    """Return the configuration of Alertmanager; `texts` are in ``amarre.tmpl`` next to it."""
    return document(
        "Alert routing. Rendered by `amarre render alertmanager`.",
        {
            "global": _global(delivery),
            "templates": [TEMPLATES],
            "route": {
                "receiver": str(Team.MESH),
                "group_by": ["alertname", "team", "service", "workload"],
                "group_wait": pace(minutes=0.5),
                "group_interval": pace(minutes=5),
                "repeat_interval": pace(minutes=12 * 60),
                "routes": [_alive(pace), *(_route(team, pace) for team in Team)],
            },
            "inhibit_rules": [
                {
                    "source_matchers": [f'alertname=~"{rule.cause}"'],
                    "target_matchers": [f'alertname=~"{rule.effects}"'],
                    **({"equal": list(rule.equal)} if rule.equal else {}),
                }
                for rule in INHIBITIONS
            ],
            "receivers": [
                receiver
                for team in Team
                for receiver in (_by_day(team, delivery), _on_call(team, delivery))
            ]
            + [_heartbeat(delivery)],
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
                # An effect that is no longer inhibited must not wait for five minutes.
                "group_interval": pace(minutes=1),
                "repeat_interval": pace(minutes=60),
            }
        ],
    }


def _alive(pace: Pace) -> dict[str, Any]:
    """Return the route of the heartbeat, to a service that pages when it stops."""
    return {
        "matchers": [f'severity="{Severity.HEARTBEAT}"'],
        "receiver": HEARTBEAT,
        "group_wait": pace(minutes=0.1),
        "group_interval": pace(minutes=1),
        "repeat_interval": pace(minutes=1),
    }


def _heartbeat(delivery: Delivery) -> dict[str, Any]:
    receiver: dict[str, Any] = {"name": HEARTBEAT}
    if delivery.heartbeat:
        receiver["webhook_configs"] = [_webhook(delivery, delivery.heartbeat, resolved=False)]
    return receiver


def _webhook(delivery: Delivery, url: str, *, resolved: bool) -> dict[str, Any]:
    webhook: dict[str, Any] = {"url": url, "send_resolved": resolved}
    if delivery.secrets:
        webhook["http_config"] = {
            "authorization": {"credentials_file": str(delivery.secrets / "webhook-token")}
        }
    return webhook


def _by_day(team: Team, delivery: Delivery) -> dict[str, Any]:
    return {"name": str(team), "email_configs": [_mail(team, delivery)]}


def _on_call(team: Team, delivery: Delivery) -> dict[str, Any]:
    receiver: dict[str, Any] = {
        "name": f"{team}-on-call",
        "email_configs": [_mail(team, delivery)],
    }
    if delivery.webhook:
        receiver["webhook_configs"] = [_webhook(delivery, delivery.webhook, resolved=True)]
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
    """Return the message templates, which are the same for every receiver."""
    return """\
{{/* Message templates. Rendered by `amarre render alertmanager`. */}}
{{ define "amarre.subject" -}}
[{{ if eq .Status "firing" }}{{ .CommonLabels.severity }}{{ else }}resolved{{ end }}] \
{{ .GroupLabels.alertname }}{{ with .GroupLabels.service }} {{ . }}{{ end }}\
{{ with .GroupLabels.workload }} {{ . }}{{ end }}
{{- end }}
{{ define "amarre.text" -}}
{{ range .Alerts }}{{ .Annotations.summary }}
{{ .Annotations.description }}
Firing since {{ .StartsAt.Format "2006-01-02 15:04:05 MST" }}\
{{ if eq .Status "resolved" }}, resolved at {{ .EndsAt.Format "15:04:05 MST" }}{{ end }}.
What to do: {{ .Annotations.runbook_url }}

{{ end }}
{{- end }}
"""
