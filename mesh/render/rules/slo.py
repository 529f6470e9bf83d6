"""
Alerts on objectives: burn rates of error budgets, slow and failing methods.

The error budget is the complement of the objective: 99.9 % leaves 1 call in 1000. A burn rate of
14.4 spends 2 % of a month's budget in an hour. Each alert has two windows: the long one shows that
it is significant, the short one that it is ongoing. Short windows are shorter than in the book, so
that a resolved fault does not page, and an incident of minutes is not a slow burn.

Source:
    The Site Reliability Workbook, chapter 5.
"""

from collections.abc import Iterator

from mesh.chassis.telemetry import names
from mesh.contract.policy import Mesh
from mesh.contract.wire import HEALTH_PATH
from mesh.render.rules.alert import Alert, Fires, Quiet, Severity, Team
from mesh.render.rules.pace import Pace
from mesh.render.rules.recording import BUCKETS, BY_METHOD, CALLS, FAULTS, ends, is_timed

PAGES_ABOVE = 14.4
"""The burn rate over an hour that pages."""
FAST = ((PAGES_ABOVE, "1h", "5m"), (6, "6h", "5m"))
SLOW = ((3, "1d", "1h"), (1, "3d", "1h"))
SLOW_MINUTES = 75
"""Longer than the short window: incidents of less than 15 minutes are covered by FAST."""
ENOUGH_CALLS = 5
"""Minimum number of failed calls for an alert: one failure at low traffic is not significant."""

_METHOD = "{{ $labels.service }}.{{ $labels.method }}"
_LIST = 'service="survey",method="ListRequests"'
_STREAM = 'service="auth",method="WatchRevocations"'
_WHICH = {"service": "survey", "method": "ListRequests"}


def alerts(contract: Mesh, pace: Pace) -> Iterator[Alert]:
    """Yield the alerts of this file."""
    yield from _availability(pace)
    yield from _latency(contract, pace)
    yield _errors(contract, pace)
    yield _gateway_errors(contract, pace)
    yield from _percentiles(contract, pace)


def _availability(pace: Pace) -> Iterator[Alert]:
    for name, pairs, severity, minutes, hours in (
        ("AvailabilityBudgetBurnsFast", FAST, Severity.CRITICAL, 2, 6),
        ("AvailabilityBudgetBurnsSlowly", SLOW, Severity.WARNING, SLOW_MINUTES, 72),
    ):
        window = pace(minutes=hours * 60)
        yield Alert(
            name=name,
            expr=_burning("failed", "availability", pairs)
            + f"\nand on ({BY_METHOD})\nsum by ({BY_METHOD}) "
            f'(increase({CALLS}{{code=~"{FAULTS}"}}[{window}])) >= {ENOUGH_CALLS}',
            minutes=minutes,
            severity=severity,
            team=Team.MESH,
            summary=f"{_METHOD} exceeds the error ratio of its objective.",
            description="{{ $value | humanizePercentage }} of calls fail because of the service.",
            fires=Fires(
                series={
                    f'{CALLS}{{{_LIST},code="OK"}}': "0+90x120",
                    f'{CALLS}{{{_LIST},code="UNAVAILABLE"}}': "0+10x120",
                },
                at=30 + minutes,
                labels=_WHICH,
                value="10%",
            ),
            quiet=Quiet(
                series={
                    # Caller errors do not count, and a single failure is not enough.
                    f'{CALLS}{{{_LIST},code="OK"}}': "0+2x120",
                    f'{CALLS}{{{_LIST},code="NOT_FOUND"}}': "0+10x120",
                    f'{CALLS}{{{_LIST},code="INTERNAL"}}': "0x10 1x110",
                    f'{CALLS}{{{_STREAM},code="UNAVAILABLE"}}': "0+10x120",
                },
                at=30 + minutes,
            ),
        )


def _latency(contract: Mesh, pace: Pace) -> Iterator[Alert]:
    bound = contract.method("survey.ListRequests").objective.latency.total_seconds()
    for name, pairs, severity, minutes, hours in (
        ("LatencyBudgetBurnsFast", FAST, Severity.CRITICAL, 2, 6),
        ("LatencyBudgetBurnsSlowly", SLOW, Severity.WARNING, SLOW_MINUTES, 72),
    ):
        window = pace(minutes=hours * 60)
        yield Alert(
            name=name,
            expr=_burning("slow", "latency", pairs)
            + f"\nand on ({BY_METHOD})\nsum by ({BY_METHOD}) (increase({CALLS}[{window}])) >= "
            f"{20 * ENOUGH_CALLS}",
            minutes=minutes,
            severity=severity,
            team=Team.MESH,
            summary=f"{_METHOD} exceeds its latency objective.",
            description="{{ $value | humanizePercentage }} of calls are slower than the objective.",
            fires=Fires(
                series={
                    f'{CALLS}{{{_LIST},code="OK"}}': "0+100x120",
                    f'{BUCKETS}{{{_LIST},code="OK",le="{bound}"}}': "0+10x120",
                },
                at=30 + minutes,
                labels=_WHICH,
                value="90%",
            ),
            quiet=Quiet(
                series={
                    f'{CALLS}{{{_LIST},code="OK"}}': "0+100x120",
                    f'{BUCKETS}{{{_LIST},code="OK",le="{bound}"}}': "0+97x120",
                },
                at=30 + minutes,
            ),
        )


def _burning(bad: str, promise: str, pairs: tuple[tuple[float, str, str], ...]) -> str:
    def above(window: str, factor: float) -> str:
        allowed = f"{factor} * (1 - service_method:amarre_{promise}:objective)"
        return f"service_method:amarre_{bad}:ratio_rate{window} > on ({BY_METHOD}) {allowed}"

    both = (
        f"({above(long, factor)}\n  and on ({BY_METHOD})\n  {above(short, factor)})"
        for factor, long, short in pairs
    )
    return "(\n" + "\nor\n".join(both) + "\n)"


def _errors(contract: Mesh, pace: Pace) -> Alert:
    window, calls = pace(minutes=5), ends(contract)
    failed = f'{CALLS}{{{calls},code=~"{FAULTS}"}}'
    return Alert(
        name="ErrorsAboveFivePercent",
        keeps_firing=5,
        expr=f"sum by (service) (rate({failed}[{window}]))\n/\n"
        f"sum by (service) (rate({CALLS}{{{calls}}}[{window}]))\n> 0.05\nand on (service)\n"
        f"sum by (service) (increase({failed}[{window}])) >= {ENOUGH_CALLS}",
        minutes=2,
        severity=Severity.CRITICAL,
        team=Team.MESH,
        summary="{{ $labels.service }} is failing.",
        description="{{ $value | humanizePercentage }} of calls fail because of the service.",
        fires=Fires(
            series={
                f'{CALLS}{{{_LIST},code="OK"}}': "0+80x60",
                f'{CALLS}{{{_LIST},code="INTERNAL"}}': "0+20x60",
            },
            at=15,
            labels={"service": "survey"},
            value="20%",
        ),
        quiet=Quiet(
            series={
                f'{CALLS}{{{_LIST},code="OK"}}': "0+96x60",
                f'{CALLS}{{{_LIST},code="INTERNAL"}}': "0+4x60",
                f'{CALLS}{{{_STREAM},code="UNAVAILABLE"}}': "0+50x60",
                f'{CALLS}{{{_LIST},code="NOT_FOUND"}}': "0+20x60",
            },
            at=15,
        ),
    )


def _gateway_errors(contract: Mesh, pace: Pace) -> Alert:
    # Health probes return 503 by design while a part is unhealthy.
    probes = "|".join(
        [HEALTH_PATH, *(r.path for m in contract if m.service == "health" for r in m.routes)]
    )
    series, window = f"{names.HTTP_SERVER_DURATION}_count", pace(minutes=5)
    of = f'route!~"{probes}"'
    bad = f'{series}{{{of},status=~"5.."}}[{window}]'
    every = f"{series}{{{of}}}[{window}]"
    return Alert(
        name="GatewayErrors",
        expr=f"sum(rate({bad}))\n/\nsum(rate({every}))\n> 0.05\n"
        f"and sum(increase({bad})) >= {ENOUGH_CALLS}",
        service="gateway",
        minutes=2,
        severity=Severity.CRITICAL,
        team=Team.MESH,
        summary="Researchers get errors.",
        description="{{ $value | humanizePercentage }} of gateway responses are 5xx.",
        fires=Fires(
            series={
                f'{series}{{method="GET",route="/",status="200"}}': "0+50x60",
                f'{series}{{method="GET",route="/",status="503"}}': "0+50x60",
            },
            at=15,
            value="50%",
        ),
        quiet=Quiet(
            series={
                f'{series}{{method="GET",route="/",status="200"}}': "0+50x60",
                f'{series}{{method="GET",route="/",status="404"}}': "0+50x60",
                f'{series}{{method="GET",route="{HEALTH_PATH}",status="503"}}': "0+50x60",
            },
            at=15,
        ),
    )


def _percentiles(contract: Mesh, pace: Pace) -> Iterator[Alert]:
    p95 = "service_method:amarre_latency_seconds:p95_5m"
    enough = f"sum by ({BY_METHOD}) (increase({CALLS}[{pace(minutes=10)}])) >= {2 * ENOUGH_CALLS}"
    slow = {
        f'{CALLS}{{{_LIST},code="OK"}}': "0+100x60",
        f'{BUCKETS}{{{_LIST},code="OK",le="0.5"}}': "0x60",
        f'{BUCKETS}{{{_LIST},code="OK",le="2.5"}}': "0+100x60",
        f'{BUCKETS}{{{_LIST},code="OK",le="+Inf"}}': "0+100x60",
    }
    quick = {**slow, f'{BUCKETS}{{{_LIST},code="OK",le="0.5"}}': "0+99x60"}
    yield Alert(
        name="MethodSlowerThanPromised",
        expr=f"{p95} > on ({BY_METHOD}) service_method:amarre_latency:objective_seconds\n"
        f"and on ({BY_METHOD}) {enough}",
        minutes=10,
        severity=Severity.WARNING,
        team=Team.MESH,
        summary=f"{_METHOD} is slower than its objective.",
        description="Its 95th percentile is {{ $value | humanizeDuration }}.",
        fires=Fires(series=slow, at=30, labels=_WHICH, value="2.4s"),
        quiet=Quiet(series=quick, at=30),
    )
    # Only for methods whose latency objective is at most a second.
    quick_ones = "|".join(
        method.name
        for method in contract
        if is_timed(method) and method.objective.latency.total_seconds() <= 1
    )
    yield Alert(
        name="MethodAboveOneSecond",
        expr=f'{p95}{{method=~"{quick_ones}"}} > 1\nand on ({BY_METHOD}) {enough}',
        minutes=5,
        severity=Severity.CRITICAL,
        team=Team.MESH,
        summary=f"{_METHOD} takes more than a second.",
        description="Its 95th percentile is {{ $value | humanizeDuration }}.",
        fires=Fires(series=slow, at=30, labels=_WHICH, value="2.4s"),
        quiet=Quiet(series=quick, at=30),
    )
    limit = "service:amarre_in_flight:limit"
    # The number fluctuates: a service that rejects calls is below its limit in some samples.
    in_flight = f"avg_over_time({names.RPC_SERVER_IN_FLIGHT}[{pace(minutes=2)}])"
    yield Alert(
        name="ServiceSaturated",
        expr=f"max by (service) ({in_flight}) / on (service) {limit} > 0.8",
        minutes=2,
        severity=Severity.WARNING,
        team=Team.MESH,
        summary="{{ $labels.service }} is close to its limit of concurrent calls.",
        description="It uses {{ $value | humanizePercentage }} of the limit in its contract.",
        fires=Fires(
            series={f'{names.RPC_SERVER_IN_FLIGHT}{{service="survey"}}': "90x30"},
            at=15,
            labels={"service": "survey"},
            value="90%",
        ),
        quiet=Quiet(series={f'{names.RPC_SERVER_IN_FLIGHT}{{service="survey"}}': "70x30"}, at=15),
    )
