"""
Recording rules for alerts and dashboards: rates, error ratios and objectives per method.

Names follow Prometheus conventions: level:metric:operation, with the production window.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from mesh.chassis.telemetry import names
from mesh.contract.model import LONGEST_CALL
from mesh.contract.policy import Mesh, Method
from mesh.render.rules.pace import Pace

WINDOWS = {"5m": 5, "30m": 30, "1h": 60, "2h": 120, "6h": 360, "1d": 1440, "3d": 4320}
"""Windows in minutes, by their name in the rules."""
FAULTS = "|".join(sorted(names.FAULT_CODES))
CALLS = f"{names.RPC_CLIENT_DURATION}_count"
"""The client's view of calls: includes those that reached no server, and counts retries once."""
BUCKETS = f"{names.RPC_CLIENT_DURATION}_bucket"
SERVED = f"{names.RPC_SERVER_DURATION}_count"
"""The server's view of calls, with error reasons."""
BY_METHOD = "service, method"

Rule = dict[str, Any]


def groups(contract: Mesh, pace: Pace) -> list[Rule]:
    """Return the groups of recording rules."""
    return [
        _group("amarre-promises", promises(contract), pace, minutes=1),
        _group("amarre-rates", rates(contract, pace), pace, minutes=0.25),
        *(
            _group(f"amarre-budget-{name}", shares(contract, name, pace), pace, minutes=every)
            for name, every in _budget_windows()
        ),
    ]


def promises(contract: Mesh) -> Iterator[Rule]:
    """Yield the objectives as series, so that one alert covers every method."""
    for method in contract:
        yield _promise(
            "service_method:amarre_availability:objective", method.objective.availability, method
        )
        if is_timed(method):
            seconds = method.objective.latency.total_seconds()
            yield _promise("service_method:amarre_latency:objective_seconds", seconds, method)
            share = method.objective.latency_share
            yield _promise("service_method:amarre_latency:objective", share, method)
    for service in contract.services:
        yield {
            "record": "service:amarre_in_flight:limit",
            "expr": f"vector({service.max_concurrent_requests})",
            "labels": {"service": service.name},
        }


def rates(contract: Mesh, pace: Pace) -> Iterator[Rule]:
    """Yield calls per second, and quantiles over 5 minutes."""
    window = pace(minutes=5)
    yield {
        "record": "service_method:amarre_calls:rate5m",
        "expr": f"sum by ({BY_METHOD}) (rate({CALLS}[{window}]))",
    }
    yield {
        "record": "service_method_code:amarre_calls:rate5m",
        "expr": f"sum by ({BY_METHOD}, code) (rate({CALLS}[{window}]))",
    }
    streams = "|".join(m.name for m in contract if not is_timed(m))
    for percent in (50, 95, 99):
        yield {
            "record": f"service_method:amarre_latency_seconds:p{percent}_5m",
            "expr": (
                f"histogram_quantile({percent / 100}, sum by ({BY_METHOD}, le) "
                f'(rate({BUCKETS}{{method!~"{streams}"}}[{window}])))'
            ),
        }


def shares(contract: Mesh, name: str, pace: Pace) -> Iterator[Rule]:
    """Yield the ratios of failed and slow calls per window."""
    window, calls = pace(minutes=WINDOWS[name]), ends(contract)
    total = f"sum by ({BY_METHOD}) (rate({CALLS}{{{calls}}}[{window}]))"
    failed = f'sum by ({BY_METHOD}) (rate({CALLS}{{{calls},code=~"{FAULTS}"}}[{window}]))'
    yield {
        "record": f"service_method:amarre_failed:ratio_rate{name}",
        "expr": f"({failed} or {total} * 0)\n/\n({total} > 0)",
    }
    yield {
        "record": f"service_method:amarre_slow:ratio_rate{name}",
        "expr": "\nor\n".join(_slow(group, window) for group in _by_objective(contract)),
    }


def ends(methods: Iterable[Method]) -> str:
    """
    Return the matcher that excludes long-lived streams.

    Callers count a stream when it ends, and each failed attempt to open one while the service
    starts: an error ratio of those says nothing about open streams.
    """
    return f'method!~"{"|".join(method.name for method in methods if method.stays_open)}"'


def is_timed(method: Method) -> bool:
    """Return whether a method has a meaningful latency; long-lived streams do not."""
    return method.objective.latency <= LONGEST_CALL


def _budget_windows() -> Iterator[tuple[str, float]]:
    for name, minutes in WINDOWS.items():
        yield name, 0.25 if minutes <= 60 else 1


def _by_objective(contract: Mesh) -> Iterator[list[Method]]:
    def key(method: Method) -> tuple[str, float]:
        return method.service, method.objective.latency.total_seconds()

    timed = sorted((m for m in contract if is_timed(m)), key=key)
    for _, group in groupby(timed, key):
        yield list(group)


def _slow(methods: list[Method], window: str) -> str:
    bound = methods[0].objective.latency.total_seconds()
    those = "|".join(sorted(method.name for method in methods))
    which = f'service="{methods[0].service}",method=~"{those}"'
    fast = f'sum by ({BY_METHOD}) (rate({BUCKETS}{{{which},le="{bound}"}}[{window}]))'
    return f"1 - {fast} / (sum by ({BY_METHOD}) (rate({CALLS}{{{which}}}[{window}])) > 0)"


def _promise(record: str, value: float, method: Method) -> Rule:
    labels = {"service": method.service, "method": method.name, "source": method.source}
    return {"record": record, "expr": f"vector({value})", "labels": labels}


def _group(name: str, rules: Iterable[Rule], pace: Pace, *, minutes: float) -> Rule:
    return {"name": name, "interval": pace(minutes=minutes), "rules": list(rules)}
