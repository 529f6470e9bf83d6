"""
Root causes: groups alerts by the alert that explains them.

An alert explains another when it is nearer to the root (a host before a process, a process before
its callers) and the other alert's service is the same or depends on it, directly or indirectly.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mesh import topology
from mesh.console.incidents.alert import DEPENDENCIES, HOST, Alert
from mesh.console.incidents.alerts import OWN
from mesh.console.incidents.changes import us
from mesh.console.store.call_edges import GATEWAY
from mesh.contract.policy import ANY_CALLER, Mesh

_RANKS = (
    {"DiskFilling", "HostMemoryLow", "HostCpuHigh", "ClockWrong"},
    {"ServiceDown", "ProxyDown"},
    {
        "RedcapFailing",
        "RedcapBreakerOpen",
        "RedcapSlow",
        "AppwriteFailing",
        "MailFailing",
        "MailsWaiting",
        "DatabaseSlow",
    },
    {"CanaryFailing", "CertificateExpiring", "CallersRefused", "SignInsFailing", "BackupOld"},
    {"RetryStorm", "ServiceSaturated", "LimitRefusals", "EventLoopLate"},
)
"""Alerts that name a cause, nearest to the root first; all others are symptoms."""
_DEPENDENCY = 2
_SYMPTOM = len(_RANKS)
_EQUAL = {
    "RedcapFailing": 0,
    "RedcapBreakerOpen": 1,
    "RedcapSlow": 2,
    "ServiceDown": 0,
    "ProxyDown": 1,
    "MailFailing": 0,
    "MailsWaiting": 1,
    "LimitRefusals": 0,
    "EventLoopLate": 1,
    "ServiceSaturated": 2,
    "RetryStorm": 3,
    "AvailabilityBudgetBurnsFast": 0,
    "ErrorsAboveFivePercent": 1,
    "GatewayErrors": 9,
}
"""The order of several alerts on one service."""
_INDEPENDENT = {
    "CallersRefused",
    "SignInsFailing",
    "CertificateExpiring",
    "BackupOld",
    "CanaryFailing",
}
"""Alerts that are never effects: they are not about health, or compare with a healthy version."""
_OVERLOAD = {"LimitRefusals", "EventLoopLate"}
_EXPLAINS_NOTHING = {"BackupOld", "SignInsFailing", "CallersRefused"}
SOONER = timedelta(seconds=90)
"""How long before its cause an effect may be noticed."""
_BACKENDS = {"redcap": "redcap", "outbox": "mail"}


@dataclass(frozen=True)
class Cause:
    """One alert and those that it explains."""

    alert: Alert
    effects: tuple[Alert, ...]


def key_of(alert: Alert) -> tuple[str, str]:
    """Return what identifies an alert over time."""
    return alert.name, alert.service


def group(
    alerts: Iterable[Alert],
    dependencies: Mapping[str, frozenset[str]],
    began: Callable[[Alert], int] = lambda _: 0,
    ended: Callable[[Alert], int] = lambda _: sys.maxsize,
) -> list[Cause]:
    """
    Return one cause for each group of *alerts*, the nearest to the root first.

    Args:
        alerts: All alerts that fire.
        dependencies: What each service depends on.
        began: When an alert began to fire, in microseconds: one that fired long before another is
            not its effect.
        ended: When everything that an alert reports had ended (`Alert.over`): what had ended
            before another began is neither its effect nor its cause.
    """
    ordered = sorted(alerts, key=_order)
    causes: list[tuple[Alert, list[Alert]]] = []
    for alert in ordered:
        home = next(
            (
                effects
                for cause, effects in causes
                if explains(cause, alert, dependencies)
                and (
                    key_of(cause) == key_of(alert)
                    or (
                        began(alert) > began(cause) - us(SOONER)
                        and ended(alert) >= began(cause)
                        and ended(cause) >= began(alert)
                    )
                )
            ),
            None,
        )
        if home is None:
            causes.append((alert, []))
        else:
            home.append(alert)
    return [Cause(alert, tuple(effects)) for alert, effects in causes]


def is_nearer(cause: Alert, alert: Alert) -> bool:
    """Return whether *cause* is nearer to the root than *alert*."""
    return _rank(cause) < _rank(alert)


def outranks(cause: Alert, alert: Alert) -> bool:
    """Return whether *cause* names an incident rather than *alert*; not if both are alike."""
    return _order(cause)[:2] < _order(alert)[:2]


def _order(alert: Alert) -> tuple[int, int, str, str]:
    return _rank(alert), _EQUAL.get(alert.name, 5), alert.service, alert.subject


def _rank(alert: Alert) -> int:
    return next((n for n, names in enumerate(_RANKS) if alert.name in names), _SYMPTOM)


def has_ended(alert: Alert) -> bool:
    """Whether what an alert reports has ended; its rule, or that of Prometheus, looks back."""
    return alert.over or (alert.source != "console" and alert.name in OWN)


def explains(cause: Alert, alert: Alert, dependencies: Mapping[str, frozenset[str]]) -> bool:
    """Return whether *cause*, which does not sort after *alert*, explains it."""
    if cause.service == alert.service and cause.name == alert.name:
        return True  # Several processes, methods or clusters of one service.
    if has_ended(cause) and not has_ended(alert):
        return False
    if has_ended(cause) and cause.service != alert.service and _rank(cause) == _SYMPTOM:
        return False
    if alert.name in _INDEPENDENT or cause.name in _EXPLAINS_NOTHING:
        return False
    if cause.service == alert.service:
        return True
    if cause.name == "DiskFilling" and cause.service == HOST:
        return alert.service not in DEPENDENCIES.values()
    called = dependencies.get(cause.service, frozenset())
    if cause.name in _OVERLOAD and _rank(alert) == _SYMPTOM and alert.service in called:
        return True  # Callers measure calls: an overloaded caller also measures its own delay.
    # A failure outside the mesh is never the effect of a service in it.
    return _rank(alert) > _DEPENDENCY and cause.service in dependencies.get(
        alert.service, frozenset()
    )


def dependencies(mesh: Mesh) -> dict[str, frozenset[str]]:
    """Return what each service depends on, directly or indirectly."""
    direct = _direct(mesh)
    return {service: frozenset(_reached(service, direct)) for service in direct}


def _direct(mesh: Mesh) -> dict[str, set[str]]:
    direct: dict[str, set[str]] = {}
    services = {service.name for service in mesh.services}
    for method in mesh:
        for caller in method.callers:
            if caller != ANY_CALLER:
                direct.setdefault(caller, set()).add(method.service)
        if method.routes:
            direct.setdefault(GATEWAY, set()).add(method.service)
    for process in topology.PROCESSES:
        for need in process.needs:
            name = need if need in services else _BACKENDS.get(need)
            if name:
                direct.setdefault(process.name, set()).add(name)
    direct.setdefault("auth", set()).add("identity")
    return direct


def affected(mesh: Mesh, incident: Mapping[str, Any]) -> frozenset[str]:
    """
    Return the methods that an incident affects.

    These are the methods that its alerts name, and every method of a service that is the cause; if
    they name none, every method of its services; for a dependency, those of the services that call
    it.

    Args:
        mesh: The contracts.
        incident: As the API shows it.
    """
    cause = incident["cause"]["service"]
    if named := frozenset(incident["rpcs"]):
        of_cause = {one.short_name for one in mesh if one.service == cause}
        return named if named & of_cause else named | of_cause
    about = observers(mesh, (cause, *(one["service"] for one in incident["effects"])))
    return frozenset(one.short_name for one in mesh if one.service in about)


def observers(mesh: Mesh, services: Iterable[str]) -> frozenset[str]:
    """Return *services*, and for those outside the mesh the services that call them."""
    found = frozenset(services)
    outside = found - {service.name for service in mesh.services}
    callers = (name for name, needs in _direct(mesh).items() if not outside.isdisjoint(needs))
    return found.union(callers)


def _reached(service: str, direct: Mapping[str, Iterable[str]]) -> set[str]:
    found: set[str] = set()
    todo: Sequence[str] = list(direct.get(service, ()))
    while todo:
        found |= set(todo)
        todo = [n for one in todo for n in direct.get(one, ()) if n not in found]
    return found - {service}
