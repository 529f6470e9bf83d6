"""Alerts on monitoring itself: Prometheus, Alertmanager, collector, and a heartbeat."""

from collections.abc import Iterator

from mesh.render.rules.alert import Alert, Fires, Quiet, Severity, Team
from mesh.render.rules.pace import Pace

WATCHDOG = "Watchdog"
_FAILED = "alertmanager_notifications_failed_total"
_RULES = "prometheus_rule_evaluation_failures_total"
_LOST = tuple(
    f"otelcol_exporter_{step}_failed_{signal}"
    for step in ("send", "enqueue")
    for signal in ("spans", "log_records", "metric_points")
)


def alerts(pace: Pace) -> Iterator[Alert]:
    """Yield the alerts of this file."""
    window = pace(minutes=5)
    yield Alert(
        name=WATCHDOG,
        expr="vector(1)",
        minutes=0,
        severity=Severity.HEARTBEAT,
        team=Team.MESH,
        summary="Monitoring works.",
        description="Always firing. When it stops arriving, alerts are no longer delivered.",
        fires=Fires(series={"up": "1x10"}, at=5),
        quiet=None,
    )
    yield Alert(
        name="NotificationsFailing",
        expr=f"sum by (integration) (increase({_FAILED}[{window}])) > 0",
        minutes=5,
        severity=Severity.CRITICAL,
        team=Team.MESH,
        summary="Alertmanager cannot deliver by {{ $labels.integration }}.",
        description="{{ $value | humanize }} notifications failed in 5 minutes.",
        fires=Fires(
            series={f'{_FAILED}{{integration="email",reason="other"}}': "0+1x30"},
            at=20,
            labels={"integration": "email"},
            value="5",
        ),
        quiet=Quiet(series={f'{_FAILED}{{integration="email",reason="other"}}': "7x30"}, at=20),
    )
    yield Alert(
        name="RulesFailing",
        expr=f"sum by (rule_group) (increase({_RULES}[{window}])) > 0",
        minutes=5,
        severity=Severity.WARNING,
        team=Team.MESH,
        summary="Prometheus cannot evaluate {{ $labels.rule_group }}.",
        description="{{ $value | humanize }} evaluations failed in 5 minutes.",
        fires=Fires(
            series={f'{_RULES}{{rule_group="amarre-slo"}}': "0+4x30"},
            at=20,
            labels={"rule_group": "amarre-slo"},
            value="20",
        ),
        quiet=Quiet(series={f'{_RULES}{{rule_group="amarre-slo"}}': "4x30"}, at=20),
    )
    series = f'{_LOST[0]}{{exporter="otlp_grpc/tempo"}}'
    yield Alert(
        name="TelemetryLost",
        expr="\nor\n".join(f"sum by (exporter) (increase({each}[{window}])) > 0" for each in _LOST),
        minutes=10,
        severity=Severity.WARNING,
        team=Team.MESH,
        summary="The collector cannot deliver to {{ $labels.exporter }}.",
        description="{{ $value | humanize }} items were lost in 5 minutes.",
        fires=Fires(
            series={series: "0+100x30"},
            at=20,
            labels={"exporter": "otlp_grpc/tempo"},
            value="500",
        ),
        quiet=Quiet(series={series: "100x30"}, at=20),
    )
