"""Alerts on the processes, proxies and certificates of the mesh."""

from collections.abc import Iterator

from mesh.chassis.telemetry import names
from mesh.render.rules.alert import Alert, Fires, Quiet, Severity, Team
from mesh.render.rules.pace import Pace

_SURVEY = {"workload": "survey", "process": "survey"}
_OF_SURVEY = 'workload="survey",process="survey"'
_OF_PROXY = 'workload="survey",process="survey-envoy",envoy_rbac_http_prefix="allow"'
_OVERFLOW = "envoy_cluster_upstream_rq_{}_overflow"
_REFUSED = f'{names.REFUSALS}{{service="survey",method="GetLink",reason="PERMISSION_DENIED"}}'


def alerts(pace: Pace) -> Iterator[Alert]:
    """Yield the alerts of this file."""
    yield from _presence(pace)
    yield from _proxies(pace)
    yield _certificate()
    yield _loop(pace)
    yield _cpu(pace)
    yield from _security(pace)
    yield _limits(pace)


def _presence(pace: Pace) -> Iterator[Alert]:
    yield _down(
        pace,
        "ServiceDown",
        job="amarre",
        process="survey",
        summary="{{ $labels.process }} is or was down.",
    )
    yield _down(
        pace,
        "ProxyDown",
        job="envoy",
        process="survey-envoy",
        summary="The proxy {{ $labels.process }} is or was down.",
    )
    yield Alert(
        name="NothingIsScraped",
        expr='absent(up{job="amarre"})',
        minutes=5,
        severity=Severity.CRITICAL,
        team=Team.MESH,
        summary="Prometheus has no scrape targets of the mesh.",
        description="No other alert can fire until this one is resolved.",
        fires=Fires(series={'up{job="node"}': "1x20"}, at=10, labels={"job": "amarre"}),
        quiet=Quiet(series={f'up{{job="amarre",{_OF_SURVEY}}}': "0x20"}, at=10),
    )


def _down(pace: Pace, name: str, *, job: str, process: str, summary: str) -> Alert:
    up = f'up{{job="{job}",workload="survey",process="{process}"}}'
    return Alert(
        name=name,
        # One missed scrape is not an outage.
        expr="avg by (workload, process) "
        f'(avg_over_time(up{{job="{job}"}}[{pace(minutes=5)}])) < 0.9',
        minutes=1,
        severity=Severity.CRITICAL,
        team=Team.MESH,
        summary=summary,
        description="{{ $value | humanizePercentage }} of the scrapes in 5 minutes succeeded.",
        service="{{ $labels.workload }}",
        keeps_firing=5,
        fires=Fires(
            series={up: "1x5 0x20"},
            at=15,
            labels={"workload": "survey", "process": process},
            value="0%",
        ),
        quiet=Quiet(series={up: "1x30"}, at=15),
    )


def _proxies(pace: Pace) -> Iterator[Alert]:
    active, pending = _OVERFLOW.format("active"), _OVERFLOW.format("pending")
    window = pace(minutes=1)
    edge = 'workload="gateway",envoy_cluster_name="survey"'
    which = {"workload": "gateway", "envoy_cluster_name": "survey"}
    yield Alert(
        name="BreakerOpen",
        # A breaker at its limit rejects only what exceeds it. Those of the edge have the alert
        # LimitRefusals.
        expr="\nor\n".join(
            f"sum by (workload, envoy_cluster_name) (rate({each}[{pace(minutes=2)}])) > 0.1"
            for each in (
                f'{active}{{envoy_cluster_name!~"app_.+"}}',
                f'{pending}{{envoy_cluster_name!~"app(_.+)?"}}',
            )
        ),
        minutes=2,
        severity=Severity.CRITICAL,
        team=Team.MESH,
        summary="{{ $labels.workload }} rejects calls to {{ $labels.envoy_cluster_name }}.",
        description="Its circuit breaker is open: it rejects {{ $value | humanize }} calls per "
        "second above the limits of the contract.",
        service="{{ $labels.workload }}",
        fires=Fires(series={f"{active}{{{edge}}}": "0x5 60+60x10"}, at=10, labels=which, value="1"),
        also=(
            Fires(series={f"{pending}{{{edge}}}": "0x5 60+60x10"}, at=10, labels=which, value="1"),
        ),
        quiet=Quiet(series={f"{active}{{{edge}}}": "0x5 60x10"}, at=8),
    )
    total, healthy = "envoy_cluster_membership_total", "envoy_cluster_membership_healthy"
    yield Alert(
        name="HostEjected",
        # Hosts that outlier detection ejects and those whose health checks fail.
        expr=f"max by (workload, envoy_cluster_name) (\n  max_over_time(({total} - {healthy})"
        f"[{window}:])\n) > 0",
        minutes=1,
        severity=Severity.WARNING,
        team=Team.MESH,
        summary="{{ $labels.workload }} has ejected replicas of {{ $labels.envoy_cluster_name }}.",
        description="{{ $value }} of them are unreachable or do not respond.",
        fires=Fires(
            series={f"{total}{{{edge}}}": "2x15", f"{healthy}{{{edge}}}": "2x5 1x10"},
            at=10,
            labels=which,
            value="1",
        ),
        quiet=Quiet(
            series={f"{total}{{{edge}}}": "2x15", f"{healthy}{{{edge}}}": "2x5 1 2x10"}, at=12
        ),
    )


def _certificate() -> Alert:
    begins, ends = names.CERTIFICATE_NOT_BEFORE, names.CERTIFICATE_NOT_AFTER
    return Alert(
        name="CertificateExpiring",
        expr=f"({ends} - time())\n/\n({ends} - {begins})\n< 0.25",
        minutes=1,
        severity=Severity.CRITICAL,
        team=Team.MESH,
        summary="The certificate of {{ $labels.process }} was not renewed.",
        description="{{ $value | humanizePercentage }} of its lifetime is left.",
        fires=Fires(
            series={
                f"{begins}{{{_OF_SURVEY}}}": "0x10",
                f"{ends}{{{_OF_SURVEY}}}": "600x10",
            },
            at=9,
            labels=_SURVEY,
            value="10%",
        ),
        quiet=Quiet(
            series={
                f"{begins}{{{_OF_SURVEY}}}": "0x10",
                f"{ends}{{{_OF_SURVEY}}}": "600x10",
            },
            at=6,
        ),
    )


def _loop(pace: Pace) -> Alert:
    buckets = f"{names.EVENT_LOOP_LAG}_bucket"
    late = {
        f'{buckets}{{{_OF_SURVEY},le="0.25"}}': "0x30",
        f'{buckets}{{{_OF_SURVEY},le="0.5"}}': "0+120x30",
        f'{buckets}{{{_OF_SURVEY},le="+Inf"}}': "0+120x30",
    }
    return Alert(
        name="EventLoopLate",
        expr="histogram_quantile(0.95, sum by (host, workload, process, le) "
        f"(rate({buckets}[{pace(minutes=5)}]))) > 0.25",
        minutes=5,
        severity=Severity.WARNING,
        team=Team.MESH,
        summary="{{ $labels.process }} blocks its event loop.",
        description="The event loop is {{ $value | humanizeDuration }} late.",
        fires=Fires(series=late, at=20, labels=_SURVEY, value="487.5ms"),
        quiet=Quiet(series={**late, f'{buckets}{{{_OF_SURVEY},le="0.25"}}': "0+119x30"}, at=20),
    )


def _cpu(pace: Pace) -> Alert:
    cpu = "process_cpu_seconds_total"
    return Alert(
        name="ProcessCpuHigh",
        expr=f'rate({cpu}{{job="amarre"}}[{pace(minutes=5)}]) > 0.8',
        minutes=10,
        severity=Severity.WARNING,
        team=Team.MESH,
        summary="{{ $labels.process }} uses nearly all of a CPU.",
        description="It uses {{ $value | humanizePercentage }} of one, and cannot use more.",
        fires=Fires(
            series={f'{cpu}{{job="amarre",{_OF_SURVEY}}}': "0+57x40"},
            at=30,
            labels={"job": "amarre", **_SURVEY},
            value="95%",
        ),
        quiet=Quiet(series={f'{cpu}{{job="amarre",{_OF_SURVEY}}}': "0+42x40"}, at=30),
    )


def _security(pace: Pace) -> Iterator[Alert]:
    window, denied = pace(minutes=5), "envoy_http_rbac_denied"
    by_proxies = f'label_replace(increase({denied}[{window}]), "service", "$1", "workload", "(.+)")'
    yield Alert(
        name="CallersRefused",
        # Behind a sidecar, the proxy denies the call and the service does not see it.
        expr="sum by (service, method) "
        f'(increase({names.REFUSALS}{{reason="PERMISSION_DENIED"}}[{window}])) > 10\n'
        f"or\nsum by (service) ({by_proxies}) > 10",
        minutes=0,
        severity=Severity.WARNING,
        team=Team.SECURITY,
        summary="{{ $labels.service }} denies callers that its contract does not name.",
        description="{{ $value | humanize }} calls were denied in 5 minutes.",
        fires=Fires(
            series={_REFUSED: "0+10x20"},
            at=10,
            labels={"service": "survey", "method": "GetLink"},
            value="50",
        ),
        also=(
            Fires(
                series={f"{denied}{{{_OF_PROXY}}}": "0+10x20"},
                at=10,
                labels={"service": "survey"},
                value="50",
            ),
        ),
        quiet=Quiet(series={_REFUSED: "0x5 1x20", f"{denied}{{{_OF_PROXY}}}": "0x5 1x20"}, at=10),
    )
    failed = (
        f'{names.RPC_SERVER_DURATION}_count{{service="auth",method="LogIn",code="UNAUTHENTICATED"}}'
    )
    yield Alert(
        name="SignInsFailing",
        expr=f"sum(increase({failed}[{pace(minutes=10)}])) > 100",
        minutes=0,
        severity=Severity.WARNING,
        team=Team.SECURITY,
        summary="Many sign-ins fail.",
        description="{{ $value | humanize }} attempts to sign in failed in 10 minutes.",
        fires=Fires(series={failed: "0+30x30"}, at=20, value="300"),
        quiet=Quiet(series={failed: "0+5x30"}, at=20),
    )


def _limits(pace: Pace) -> Alert:
    window = pace(minutes=5)
    overflow = _OVERFLOW.format("pending")
    own = f'{names.LIMIT_REFUSALS}{{workload="gateway",limit="streams_total"}}'
    edge = 'workload="gateway",process="gateway-envoy",envoy_cluster_name="app_survey"'

    def of(series: str) -> str:
        return f"sum by (workload, limit) ({series}) > 0.1"

    def named(limit: str, series: str, label: str = "") -> str:
        pattern = "(.+)" if label else ""
        return (
            f'label_replace(rate({series}[{window}]), "limit", "{limit}", "{label}", "{pattern}")'
        )

    return Alert(
        name="LimitRefusals",
        # The edge rejects requests above its limits before the gateway sees them.
        expr="\nor\n".join(
            (
                of(f"rate({names.LIMIT_REFUSALS}[{window}])"),
                of(
                    named(
                        "$1", f'{overflow}{{envoy_cluster_name=~"app(_.+)?"}}', "envoy_cluster_name"
                    )
                ),
                of(named("client_rate", "envoy_http_local_rate_limit_rate_limited")),
                of(named("connections", "envoy_listener_downstream_global_cx_overflow")),
                of(named("memory", "envoy_listener_downstream_cx_overload_reject")),
            )
        ),
        minutes=5,
        severity=Severity.WARNING,
        team=Team.MESH,
        service="{{ $labels.workload }}",
        summary="The limit {{ $labels.limit }} of {{ $labels.workload }} rejects requests.",
        description="It rejects {{ $value | humanize }} requests per second.",
        fires=Fires(
            series={own: "0+60x30"},
            at=20,
            labels={"workload": "gateway", "limit": "streams_total"},
            value="1",
        ),
        also=(
            Fires(
                series={f"{overflow}{{{edge}}}": "0+60x30"},
                at=20,
                labels={"workload": "gateway", "limit": "app_survey"},
                value="1",
            ),
        ),
        quiet=Quiet(series={own: "0+1x30", f"{overflow}{{{edge}}}": "0+1x30"}, at=20),
    )
