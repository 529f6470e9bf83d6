"""Unit tests of the alerts, for ``promtool test rules``."""

from collections.abc import Iterable, Iterator
from typing import Any

from mesh.render.rules.alert import Alert, Series
from mesh.render.yaml_text import document

_RECORDED = "service_method:"


def case_file(group: str, alerts: Iterable[Alert], runbooks: str) -> str:
    """Return the tests of each alert, firing and not firing."""
    alerts = tuple(alerts)
    # Recording rules take most of promtool's time, and only some alerts use them.
    needs = ("recording",) if any(_RECORDED in alert.expr for alert in alerts) else ()
    cases = [case for alert in alerts for case in _cases(alert, runbooks)]
    return document(
        f"Unit tests of the alerts in {group}.yaml. Run: promtool test rules FILE",
        {
            "rule_files": [f"../rules/{name}.yaml" for name in (*needs, group)],
            "evaluation_interval": "1m",
            "tests": cases,
        },
    )


def _cases(alert: Alert, runbooks: str) -> Iterator[dict[str, Any]]:
    for story in (alert.fires, *alert.also):
        expected = [alert.expected(story, runbooks)]
        yield _case(alert, "fires", story.series, story.at, expected)
    if alert.quiet is not None:
        yield _case(alert, "stays quiet", alert.quiet.series, alert.quiet.at, [])


def _case(
    alert: Alert, outcome: str, series: Series, at: int, expected: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "name": f"{alert.name} {outcome}",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": f"{at}m", "alertname": alert.name, "exp_alerts": expected}
        ],
    }
