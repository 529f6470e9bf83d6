"""
Alertmanager: who receives which alert, how soon, and which effects a cause keeps quiet.

Each team has two receivers: by day a mail, on call also a chat and a webhook. The configuration
names the files of secrets and holds none.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from mesh.render.envoy.text import document
from mesh.render.rules.alert import Severity, Team
from mesh.render.rules.pace import REAL, Pace

Files = dict[str, str]
TEMPLATES = "amarre.tmpl"
HEARTBEAT = "heartbeat"


@dataclass(frozen=True)
class Delivery:
    """
    How alerts reach people.

    Args:
        smtp: The mail server, HOST:PORT.
        domain: Where the teams have their addresses: ``mesh@DOMAIN``.
        webhook: What pages the one on call; empty means nothing does.
        heartbeat: What expects the alert Watchdog every minute and calls when it stops.
        secrets: The folder of ``smtp-password``, ``slack-url`` and ``webhook-token``; none means
            a mail server and a webhook on this machine that ask for nothing, and no chat.
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
    A cause and the effects that it keeps quiet.

    Args:
        cause: The alerts of the cause, as a regular expression.
        effects: The alerts of the effects.
        equal: Labels that both must have in common: the same service, method or host.
    """

    cause: str
    effects: str
    equal: tuple[str, ...] = ()


INHIBITIONS = (
    Inhibition("AvailabilityBudgetBurnsFast", "AvailabilityBudgetBurnsSlowly", _METHOD),
    Inhibition("LatencyBudgetBurnsFast", _SLOW.partition("|")[2], _METHOD),
    Inhibition("MethodAboveOneSecond", "MethodSlowerThanPromised", _METHOD),
    Inhibition("ErrorsAboveFivePercent", _BURNS, _SERVICE),
    # A dependency or a process that is down explains errors and latency of its own service only.
    Inhibition(
        "ServiceDown|ProxyDown|RedcapFailing|RedcapBreakerOpen|AppwriteFailing",
        f"ErrorsAboveFivePercent|{_BURNS}|{_SLOW}",
        _SERVICE,
    ),
    Inhibition("ServiceDown|RedcapFailing", "RedcapBreakerOpen", _SERVICE),
    # A pod or host that is gone takes both with it.
    Inhibition("ServiceDown", "ProxyDown", _SERVICE),
    # The gateway passes on the errors of every service.
    Inhibition(
        "ServiceDown|ProxyDown|RedcapFailing|RedcapBreakerOpen|AppwriteFailing"
        "|ErrorsAboveFivePercent",
        "GatewayErrors",
    ),
    Inhibition("HostCpuHigh", "ProcessCpuHigh|EventLoopLate", _HOST),
)
"""One page per cause: which alert keeps which others quiet, and where."""


def render() -> Files:
    """Return the configuration for production and the texts of messages."""
    return {"alertmanager.yaml": configuration(PRODUCTION), TEMPLATES: texts()}


def configuration(delivery: Delivery, pace: Pace = REAL) -> str:
    """Return the configuration of Alertmanager; `texts` stand in ``amarre.tmpl`` beside it."""
    return document(
        "Who receives which alert. Rendered by `amarre render alertmanager`.",
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
                # An effect that its cause no longer keeps quiet must not wait for five minutes.
                "group_interval": pace(minutes=1),
                "repeat_interval": pace(minutes=60),
            }
        ],
    }


def _alive(pace: Pace) -> dict[str, Any]:
    """Return the route of the heartbeat: often, to a service that calls when it stops."""
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
    """Return the texts of messages, for every receiver the same."""
    return """\
{{/* The texts of messages. Rendered by `amarre render alertmanager`. */}}
{{ define "amarre.subject" -}}
[{{ if eq .Status "firing" }}{{ .CommonLabels.severity }}{{ else }}over{{ end }}] \
{{ .GroupLabels.alertname }}{{ with .GroupLabels.service }} {{ . }}{{ end }}\
{{ with .GroupLabels.workload }} {{ . }}{{ end }}
{{- end }}
{{ define "amarre.text" -}}
{{ range .Alerts }}{{ .Annotations.summary }}
{{ .Annotations.description }}
Firing since {{ .StartsAt.Format "2006-01-02 15:04:05 MST" }}\
{{ if eq .Status "resolved" }}, over at {{ .EndsAt.Format "15:04:05 MST" }}{{ end }}.
What to do: {{ .Annotations.runbook_url }}

{{ end }}
{{- end }}
"""
