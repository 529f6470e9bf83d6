"""Alerts on what the mesh depends on: REDCap, the mail server, the identity provider."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from mesh.chassis.telemetry import names as emitted
from mesh.console.incidents.alert import DEPENDENCIES, Alert, Counted, Situation
from mesh.console.incidents.process_alerts import unavailable
from mesh.console.queries.increases import Increase
from mesh.console.queries.service_graph import Key
from mesh.console.queries.service_graph import Seen as Edge

MIN_FAILED = 3
SLOW_REDCAP_SECONDS = 1.0
_OUTCOMES = {
    "timeout": "it does not respond in time",
    "away": "it is unreachable",
    "nonsense": "it returns errors or an invalid response",
}
"""The outcomes of calls to REDCap that count as its failures."""


def alerts(s: Situation, counted: Counted) -> Iterator[Alert]:
    """Yield the alerts of this file."""
    yield from _redcap(s, counted.lately)
    yield from _mail_and_identity(s, counted.edges)


def _redcap(s: Situation, lately: Sequence[Increase]) -> Iterator[Alert]:
    calls = [one for one in lately if one.name == emitted.REDCAP_DURATION]
    by_outcome: dict[str, float] = {}
    for one in calls:
        outcome = one.labels["outcome"]
        by_outcome[outcome] = by_outcome.get(outcome, 0) + one.events
    asked = sum(by_outcome.values()) - by_outcome.get("cancelled", 0)
    failed = {outcome: by_outcome[outcome] for outcome in _OUTCOMES if by_outcome.get(outcome)}
    how = ", ".join(_OUTCOMES[outcome] for outcome in failed) or "it responds too late"
    fails = sum(failed.values())
    if checking := unavailable(s, "redcap"):
        yield Alert(
            "RedcapFailing",
            "redcap",
            f"REDCap fails the health checks of {', '.join(checking)}: {how}.",
        )
    elif fails >= MIN_FAILED and fails > 0.2 * asked:
        yield Alert("RedcapFailing", "redcap", f"{fails:.0f} of {asked:.0f} calls failed: {how}.")
    fine = [one for one in calls if one.labels["outcome"] == "ok" and one.events]
    if fine:
        mean = sum(one.total for one in fine) / sum(one.events for one in fine)
        if mean > SLOW_REDCAP_SECONDS:
            yield Alert("RedcapSlow", "redcap", f"REDCap takes {mean:.1f} s on average.")


def _mail_and_identity(s: Situation, edges: Mapping[Key, Edge]) -> Iterator[Alert]:
    tried: dict[str, list[Edge]] = defaultdict(list)
    for (_, target, _), edge in edges.items():
        tried[DEPENDENCIES.get(target, "")].append(edge)
    for dependency, alert, called, attempts in (
        ("mail", "MailFailing", "The mail server", "attempts to send a mail"),
        ("identity", "AppwriteFailing", "The identity provider", "calls to the identity provider"),
    ):
        if checking := unavailable(s, dependency):
            message = f"{called} fails the health checks of {', '.join(checking)}."
            yield Alert(alert, dependency, message)
            continue
        errors = sum(edge.errors for edge in tried[dependency])
        total = sum(edge.calls for edge in tried[dependency])
        if errors and errors >= 0.5 * total:
            yield Alert(alert, dependency, f"{errors} of {total} {attempts} failed.")
