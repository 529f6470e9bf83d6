"""Formats responses of the console API as lines and tables."""

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mesh.command_line import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

BAR = 40
"""The width of a waterfall, in characters."""


def screen() -> "Console":
    """Return the console that prints tables."""
    from rich.console import Console

    # Files and pipes get the whole table, independent of the terminal width.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def printable(text: str) -> str:
    """
    Return *text* without characters that control the terminal or reorder what it shows.

    Telemetry contains what clients send. Continuation lines are indented, so that a message cannot
    look like a line of its own.
    """
    return "".join(
        each
        if each.isprintable() or each == "\t"
        else "\n    "
        if each == "\n"
        else f"{each!a}"[1:-1]
        for each in text
    )


def trace(item: dict[str, Any]) -> str:
    """Return the line for a trace in a list."""
    failed = f"  {item['errorCount']} failed" if item["errorCount"] else ""
    return (
        f"{item['start'][11:23]}  {item['traceId']}  {item['durationMs']:9.1f} ms"
        f"  {item['spanCount']:3} spans  {item['rpc'] or item['name']}{failed}"
    )


def log(item: dict[str, Any]) -> str:
    """Return the line for a log record."""
    facts = " ".join(
        f"{name}={value}"
        for name, value in item["attributes"].items()
        if name not in {"service", "instance"}
    )
    who = item["instance"] or item["service"]
    return f"{item['at'][11:23]}  {item['level']:7}  {who:12}  {item['message']}  {facts}"


def difference(edge: dict[str, Any]) -> str:
    """Return the line for a difference between declared and observed calls."""
    what = f"{edge['from']} -> {edge['to']}  {edge['method'] or '(no rpc)'}"
    if edge["declared"]:
        return f"- {what}  declared in {edge['source']}, not observed"
    calls = counted(edge["calls"], "call")
    refused = f", {edge['refused']} refused" if edge["refused"] else ""
    line = f'add callers: "{edge["from"]}" in {edge["policy"]}' if edge["policy"] else "no rpc"
    return f"+ {what}  {calls}{refused}, not declared; to allow it, {line}"


def waterfall(whole: dict[str, Any]) -> Iterator[str]:
    """Yield a line per span: service, a bar on the timeline of the trace, duration."""
    spans = whole["spans"]
    begin = min(span["startUs"] for span in spans)
    length = max(span["startUs"] + span["durationMs"] * 1000 for span in spans) - begin or 1
    yield f"{whole['rpc'] or whole['name']}  {whole['durationMs']:.1f} ms  {whole['traceId']}"
    for span in spans:
        start = int((span["startUs"] - begin) / length * BAR)
        width = max(1, round(span["durationMs"] * 1000 / length * BAR))
        mark = "!" if span["status"] == "error" else "░" if span["proxy"] else "█"
        bar = (" " * start + mark * width)[:BAR]
        name = f"{span['service']} {span['name'].rpartition('.')[2]}"
        yield f"{name[:44]:44} {bar:{BAR}} {span['durationMs']:8.1f} ms {span['code']}"


_LEAST_WIDTH = {
    **dict.fromkeys(("p50", "p99", "budget"), 90),
    **dict.fromkeys(("calls/s", "in flight", "cert", "objective", "burn"), 64),
    **dict.fromkeys(("up", "calls"), 40),
}
"""The terminal width from which a column is shown; columns not listed are always shown."""


def _table(width: int, rows: Iterable[dict[str, str]]) -> "Table":
    """Return a table of the columns that fit into *width*, so that no number is truncated."""
    from rich.table import Table
    from rich.text import Text

    listed = list(rows)
    table = Table(box=None, pad_edge=False)
    shown = [name for name in (listed[0] if listed else ()) if _LEAST_WIDTH.get(name, 0) <= width]
    for number, column in enumerate(shown):
        table.add_column(column, justify="right" if number else "left", no_wrap=bool(number))
    for row in listed:
        first, *rest = (row[name] for name in shown)
        table.add_row(
            Text(printable(first), no_wrap=True, overflow="ellipsis"),
            *(Text(printable(cell)) for cell in rest),
        )
    return table


def services(items: list[dict[str, Any]], width: int) -> "Table":
    """Return the table of services, fitted to *width*."""
    return _table(
        width,
        (
            {
                "service": item["service"],
                "up": f"{sum(p['up'] for p in item['processes'])}/{len(item['processes'])}",
                "calls": f"{item['calls']:.0f}{' (few)' if item['few'] else ''}",
                "calls/s": f"{item['rate']:.2f}",
                "failed": f"{item['errorRatio']:.2%}",
                **_quantiles(item),
                "in flight": "–" if item["saturation"] is None else f"{item['saturation']:.0%}",
                "cert": _days(item["certificateDays"]),
            }
            for item in items
        ),
    )


def alerts(overview: dict[str, Any]) -> Iterator["Text"]:
    """Yield a line per firing alert: the console's own, and those of the alert servers."""
    from rich.text import Text

    firing = [a for a in overview["serverAlerts"] if a["state"] == "firing"]
    for alert in (*firing, *overview["alerts"]):
        yield Text.assemble((alert["name"], "bold red"), " ", printable(alert["message"]))


def methods(items: list[dict[str, Any]], width: int) -> "Table":
    """Return the table of methods with their objectives, fitted to *width*."""
    return _table(
        width,
        (
            {
                "method": f"{item['service']}.{item['method']}",
                "calls": f"{item['calls']:.0f}{' (few)' if item['few'] else ''}",
                "calls/s": f"{item['rate']:.2f}",
                "failed": _failed(item),
                **_quantiles(item),
                **_promised(item),
            }
            for item in items
        ),
    )


def _failed(item: dict[str, Any]) -> str:
    """Streams are counted when they end, and as failed attempts: the ratio says little of them."""
    return "–" if item["staysOpen"] or not item["calls"] else f"{item['errorRatio']:.2%}"


def _promised(item: dict[str, Any]) -> dict[str, str]:
    objective = item.get("objective")
    if not objective:
        return dict.fromkeys(("objective", "budget", "burn"), "–")
    return {
        "objective": f"{objective['latencyMs']:g} ms",
        "budget": f"{max(0.0, item['budgetLeft']):.0%}",
        "burn": f"{item['burnRates']['1h']:.1f}",
    }


def _quantiles(item: dict[str, Any]) -> dict[str, str]:
    return {name: _ms(item[f"{name}Ms"]) for name in ("p50", "p95", "p99")}


def _days(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} d"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
