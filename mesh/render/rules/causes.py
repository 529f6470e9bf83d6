"""Alerts that name a cause: the clock, retries, a canary, a slow dependency."""

from collections.abc import Iterator

from mesh.chassis.telemetry import names
from mesh.render.rules.alert import Alert, Fires, Quiet, Severity, Team
from mesh.render.rules.outside import available, failing_checks, unavailable
from mesh.render.rules.pace import Pace
from mesh.render.rules.recording import FAULTS

_TO_SURVEY = {"workload": "gateway", "envoy_cluster_name": "survey"}
_SERIES = 'workload="gateway",envoy_cluster_name="survey"'


def alerts(pace: Pace) -> Iterator[Alert]:
    """Yield the alerts of this file."""
    yield _clock()
    yield _retries(pace)
    yield _canary(pace)
    yield _redcap(pace)
    yield _mail(pace)
    yield _database(pace)


def _clock() -> Alert:
    offset = "node_timex_offset_seconds"
    return Alert(
        name="ClockWrong",
        expr=f"abs({offset}) > 2",
        minutes=1,
        severity=Severity.CRITICAL,
        team=Team.HOSTS,
        summary="The clock of {{ $labels.instance }} is wrong.",
        description="It is off by {{ $value | humanizeDuration }}.",
        fires=Fires(
            series={f'{offset}{{instance="host"}}': "-120x10"},
            at=5,
            labels={"instance": "host"},
            value="2m 0s",
        ),
        quiet=Quiet(series={f'{offset}{{instance="host"}}': "0.1x10"}, at=5),
    )


def _retries(pace: Pace) -> Alert:
    retried, total = "envoy_cluster_upstream_rq_retry", "envoy_cluster_upstream_rq_total"
    by, window = "sum by (workload, envoy_cluster_name)", pace(minutes=2)
    return Alert(
        name="RetryStorm",
        expr=f"{by} (rate({retried}[{window}]))\n/\n{by} (rate({total}[{window}]))\n> 0.1\n"
        f"and {by} (increase({retried}[{window}])) >= 20",
        minutes=1,
        severity=Severity.WARNING,
        team=Team.MESH,
        summary="{{ $labels.workload }} retries its calls to {{ $labels.envoy_cluster_name }}.",
        description="{{ $value | humanizePercentage }} of its requests are retries.",
        fires=Fires(
            series={
                f"{retried}{{{_SERIES}}}": "0+20x20",
                f"{total}{{{_SERIES}}}": "0+100x20",
            },
            at=10,
            labels=_TO_SURVEY,
            value="20%",
        ),
        quiet=Quiet(
            series={
                f"{retried}{{{_SERIES}}}": "0+10x20",
                f"{total}{{{_SERIES}}}": "0+100x20",
            },
            at=10,
        ),
    )


def _canary(pace: Pace) -> Alert:
    calls, window = f"{names.RPC_SERVER_DURATION}_count", pace(minutes=2)
    which = 'process=~".+-canary"'
    failed = f'{calls}{{{which},code=~"{FAULTS}"}}'
    by, series = "sum by (workload, process)", 'workload="survey",process="survey-canary"'
    return Alert(
        name="CanaryFailing",
        expr=f"{by} (rate({failed}[{window}]))\n/\n{by} (rate({calls}{{{which}}}[{window}]))\n"
        f"> 0.05\nand {by} (increase({failed}[{window}])) >= 5",
        minutes=0,
        severity=Severity.WARNING,
        team=Team.MESH,
        summary="The canary of {{ $labels.workload }} fails.",
        description="{{ $value | humanizePercentage }} of the calls to it fail.",
        fires=Fires(
            series={
                f'{calls}{{{series},code="OK"}}': "0+80x20",
                f'{calls}{{{series},code="INTERNAL"}}': "0+20x20",
            },
            at=10,
            labels={"workload": "survey", "process": "survey-canary"},
            value="20%",
        ),
        quiet=Quiet(
            series={
                f'{calls}{{{series},code="OK"}}': "0+80x20",
                f'{calls}{{{series},code="NOT_FOUND"}}': "0+20x20",
            },
            at=10,
        ),
    )


def _redcap(pace: Pace) -> Alert:
    taken, window = names.REDCAP_DURATION, pace(minutes=5)
    ok = 'content="record",outcome="ok"'
    return Alert(
        name="RedcapSlow",
        expr=f'sum(rate({taken}_sum{{outcome="ok"}}[{window}]))\n/\n'
        f'sum(rate({taken}_count{{outcome="ok"}}[{window}]))\n> 1',
        minutes=2,
        severity=Severity.WARNING,
        team=Team.SURVEYS,
        summary="REDCap is slow.",
        description="It takes {{ $value | humanizeDuration }} on average.",
        fires=Fires(
            series={f"{taken}_sum{{{ok}}}": "0+150x20", f"{taken}_count{{{ok}}}": "0+50x20"},
            at=15,
            value="3s",
        ),
        quiet=Quiet(
            series={f"{taken}_sum{{{ok}}}": "0+25x20", f"{taken}_count{{{ok}}}": "0+50x20"}, at=15
        ),
    )


def _mail(pace: Pace) -> Alert:
    mails = names.MAILS
    return Alert(
        name="MailFailing",
        expr=f'sum(increase({mails}{{outcome=~"failed|late"}}[{pace(minutes=10)}])) > 0'
        + failing_checks("mail"),
        minutes=0,
        severity=Severity.CRITICAL,
        team=Team.IDENTITY,
        summary="The mail server does not accept mail.",
        description="It fails its health checks, or mails were discarded within 10 minutes.",
        fires=Fires(series={f'{mails}{{outcome="failed"}}': "0+1x20"}, at=15),
        also=(unavailable("mail"),),
        quiet=Quiet(series={f'{mails}{{outcome="sent"}}': "0+5x20", **available("mail")}, at=15),
    )


def _database(pace: Pace) -> Alert:
    taken, window, by = names.DB_DURATION, pace(minutes=2), "sum by (workload, process)"
    auth = 'workload="auth",process="auth",operation="SELECT"'
    writes = f'{names.DEPENDENCY_UP}{{dependency="database writes"}}'
    of = 'workload="auth",process="auth",dependency="database writes"'
    return Alert(
        name="DatabaseSlow",
        expr=f"{by} (rate({taken}_sum[{window}]))\n/\n{by} (rate({taken}_count[{window}]))\n> 0.5\n"
        f"or\n{by} (1 - {writes}) > 0",
        minutes=0,
        severity=Severity.CRITICAL,
        team=Team.MESH,
        summary="{{ $labels.process }} waits for its database.",
        description="A statement takes more than 0.5 s on average, or its check of writing fails.",
        fires=Fires(
            series={f"{taken}_sum{{{auth}}}": "0+20x20", f"{taken}_count{{{auth}}}": "0+10x20"},
            at=10,
            labels={"workload": "auth", "process": "auth"},
        ),
        also=(
            Fires(
                series={f"{names.DEPENDENCY_UP}{{{of}}}": "1x5 0x20"},
                at=10,
                labels={"workload": "auth", "process": "auth"},
            ),
        ),
        quiet=Quiet(
            series={
                f"{taken}_sum{{{auth}}}": "0+1x20",
                f"{taken}_count{{{auth}}}": "0+100x20",
                f"{names.DEPENDENCY_UP}{{{of}}}": "1x20",
            },
            at=10,
        ),
    )
