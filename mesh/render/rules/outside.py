"""Alerts on dependencies (REDCap, Appwrite, mail) and hosts."""

from collections.abc import Iterator

from mesh.chassis.telemetry import names
from mesh.render.rules.alert import Alert, Fires, Quiet, Severity, Team
from mesh.render.rules.pace import Pace

_REDCAP = f"{names.REDCAP_DURATION}_count"
_APPWRITE = f"{names.HTTP_CLIENT_DURATION}_count"
_UP = names.DEPENDENCY_UP
_DISK = 'instance="host",mountpoint="/data",fstype="ext4"'
_ON_DISK = {"instance": "host", "mountpoint": "/data"}


def alerts(pace: Pace) -> Iterator[Alert]:
    """Yield the alerts of this file."""
    yield _redcap(pace)
    yield _redcap_breaker()
    yield _appwrite(pace)
    yield _mails()
    yield _sign_ups(pace)
    yield from _hosts(pace)
    yield _backup()


def failing_checks(dependency: str) -> str:
    """Return the part of an expression that is true while services' checks of *dependency* fail."""
    return f'\nor\n1 - avg({_UP}{{dependency="{dependency}"}}) > 0'


def unavailable(dependency: str) -> Fires:
    """Return the test of *dependency* failing its checks without traffic."""
    series = f'{_UP}{{process="survey",dependency="{dependency}"}}'
    return Fires(series={series: "1x5 0x20"}, at=15, value="100%")


def available(dependency: str) -> dict[str, str]:
    """Return the series of *dependency* passing its checks."""
    return {f'{_UP}{{process="survey",dependency="{dependency}"}}': "1x20"}


def _redcap(pace: Pace) -> Alert:
    window, bad = pace(minutes=5), 'outcome=~"timeout|away|nonsense"'
    return Alert(
        name="RedcapFailing",
        service="survey",
        keeps_firing=5,
        expr=f"sum(rate({_REDCAP}{{{bad}}}[{window}]))\n/\n"
        f'sum(rate({_REDCAP}{{outcome!="cancelled"}}[{window}]))\n> 0.2' + failing_checks("redcap"),
        minutes=2,
        severity=Severity.CRITICAL,
        team=Team.SURVEYS,
        summary="REDCap is failing.",
        description="{{ $value | humanizePercentage }} of calls or health checks fail.",
        fires=Fires(
            series={
                f'{_REDCAP}{{content="record",outcome="ok"}}': "0+50x20",
                f'{_REDCAP}{{content="record",outcome="timeout"}}': "0+50x20",
            },
            at=15,
            value="50%",
        ),
        also=(unavailable("redcap"),),
        quiet=Quiet(
            series={
                **available("redcap"),
                f'{_REDCAP}{{content="record",outcome="ok"}}': "0+90x20",
                f'{_REDCAP}{{content="record",outcome="timeout"}}': "0+10x20",
                f'{_REDCAP}{{content="record",outcome="refused"}}': "0+50x20",
            },
            at=15,
        ),
    )


def _redcap_breaker() -> Alert:
    breaker = names.REDCAP_BREAKER_OPEN
    return Alert(
        name="RedcapBreakerOpen",
        service="survey",
        # As long as RedcapFailing, which it inhibits.
        keeps_firing=10,
        expr=f"max by (process) ({breaker}) > 0",
        minutes=0.25,
        severity=Severity.CRITICAL,
        team=Team.SURVEYS,
        summary="{{ $labels.process }} has stopped calling REDCap.",
        description="REDCap failed repeatedly; calls now fail immediately.",
        fires=Fires(
            series={f'{breaker}{{process="survey"}}': "0x5 1x10"},
            at=10,
            labels={"process": "survey"},
        ),
        quiet=Quiet(series={f'{breaker}{{process="survey"}}': "1x5 0x20"}, at=20),
    )


def _appwrite(pace: Pace) -> Alert:
    window, of = pace(minutes=5), 'backend="appwrite"'
    return Alert(
        name="AppwriteFailing",
        service="auth",
        keeps_firing=5,
        expr=f'sum(rate({_APPWRITE}{{{of},status=~"5xx|error"}}[{window}]))\n/\n'
        f"sum(rate({_APPWRITE}{{{of}}}[{window}]))\n> 0.2" + failing_checks("identity"),
        minutes=2,
        severity=Severity.CRITICAL,
        team=Team.IDENTITY,
        summary="Appwrite is failing.",
        description="{{ $value | humanizePercentage }} of calls or health checks fail.",
        fires=Fires(
            series={
                f'{_APPWRITE}{{{of},status="2xx"}}': "0+50x20",
                f'{_APPWRITE}{{{of},status="error"}}': "0+50x20",
            },
            at=15,
            value="50%",
        ),
        also=(unavailable("identity"),),
        quiet=Quiet(
            series={
                **available("identity"),
                f'{_APPWRITE}{{{of},status="2xx"}}': "0+50x20",
                f'{_APPWRITE}{{{of},status="4xx"}}': "0+50x20",
                f'{_APPWRITE}{{backend="redcap",status="error"}}': "0+50x20",
            },
            at=15,
        ),
    )


def _mails() -> Alert:
    waiting = names.MAILS_WAITING
    return Alert(
        name="MailsWaiting",
        expr=f"sum({waiting}) > 20",
        minutes=5,
        severity=Severity.CRITICAL,
        team=Team.IDENTITY,
        summary="Mails with sign-in links are not sent.",
        description="{{ $value }} are waiting; a link is valid for 10 minutes.",
        fires=Fires(series={f'{waiting}{{process="auth"}}': "30x20"}, at=10, value="30"),
        quiet=Quiet(series={f'{waiting}{{process="auth"}}': "30x3 0x20"}, at=10),
    )


def _sign_ups(pace: Pace) -> Alert:
    limited = 'amarre_auth_rate_limited_total{limit="links overall"}'
    return Alert(
        name="SignUpsLimited",
        expr=f"sum(increase({limited}[{pace(minutes=5)}])) > 0",
        minutes=1,
        severity=Severity.WARNING,
        team=Team.IDENTITY,
        summary="Requests for sign-in links exceed the limit for all clients.",
        description="{{ $value | humanize }} requests in 5 minutes used the reserve.",
        fires=Fires(series={limited: "0+6x20"}, at=10, value="30"),
        quiet=Quiet(series={limited: "0x20"}, at=10),
    )


def _hosts(pace: Pace) -> Iterator[Alert]:
    idle = 'node_cpu_seconds_total{mode="idle"}'
    series = 'node_cpu_seconds_total{instance="host",host="host",cpu="0",mode="idle"}'
    yield Alert(
        name="HostCpuHigh",
        expr=f"1 - avg by (instance, host) (rate({idle}[{pace(minutes=5)}])) > 0.8",
        minutes=10,
        severity=Severity.WARNING,
        team=Team.HOSTS,
        summary="The CPU usage of {{ $labels.instance }} is high.",
        description="It is at {{ $value | humanizePercentage }}.",
        fires=Fires(
            series={series: "0+6x40"},
            at=30,
            labels={"instance": "host", "host": "host"},
            value="90%",
        ),
        quiet=Quiet(series={series: "0+18x40"}, at=30),
    )
    free, total = "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes"
    yield Alert(
        name="HostMemoryLow",
        expr=f"{free} / {total} < 0.1",
        minutes=5,
        severity=Severity.WARNING,
        team=Team.HOSTS,
        summary="{{ $labels.instance }} is running out of memory.",
        description="{{ $value | humanizePercentage }} is available.",
        fires=Fires(
            series={f'{free}{{instance="host"}}': "5x20", f'{total}{{instance="host"}}': "100x20"},
            at=10,
            labels={"instance": "host"},
            value="5%",
        ),
        quiet=Quiet(
            series={f'{free}{{instance="host"}}': "50x20", f'{total}{{instance="host"}}': "100x20"},
            at=10,
        ),
    )
    yield _disk(pace)


def _disk(pace: Pace) -> Alert:
    left, size = "node_filesystem_avail_bytes", "node_filesystem_size_bytes"
    real = '{fstype!~"tmpfs|overlay|squashfs|ramfs"}'
    share = f"min by (instance, mountpoint) ({left}{real} / {size}{real})"
    ahead = (
        "min by (instance, mountpoint) "
        f"(predict_linear({left}{real}[{pace(minutes=60)}], 4 * 3600)) < 0"
    )
    return Alert(
        name="DiskFilling",
        expr=f"{share} < 0.1\nor\n({share} < 0.4 and {ahead})",
        minutes=5,
        severity=Severity.CRITICAL,
        team=Team.HOSTS,
        summary="The disk {{ $labels.mountpoint }} of {{ $labels.instance }} is filling up.",
        description="{{ $value | humanizePercentage }} is free, or it will be full in 4 hours.",
        fires=Fires(
            series={f"{left}{{{_DISK}}}": "40-0.2x100", f"{size}{{{_DISK}}}": "100x100"},
            at=75,
            labels=_ON_DISK,
            value="25%",
        ),
        quiet=Quiet(
            series={f"{left}{{{_DISK}}}": "35-0.01x100", f"{size}{{{_DISK}}}": "100x100"}, at=75
        ),
    )


def _backup() -> Alert:
    last = "amarre_backup_last_success_timestamp_seconds"
    series = f'{last}{{instance="host"}}'
    return Alert(
        name="BackupOld",
        # Backups run every night; two hours are a margin for duration and start time.
        expr=f"time() - max by (instance) ({last}) > 26 * 3600",
        minutes=15,
        severity=Severity.WARNING,
        team=Team.HOSTS,
        summary="The last successful backup on {{ $labels.instance }} is too old.",
        description="It completed {{ $value | humanizeDuration }} ago.",
        fires=Fires(
            series={series: "0x1600"}, at=1600, labels={"instance": "host"}, value="1d 2h 40m 0s"
        ),
        quiet=Quiet(series={series: "0x1400 84000x200"}, at=1600),
    )
