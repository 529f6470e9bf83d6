"""The page of results: one section with a table for each part."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.harness.load import OUTSIDE

_HEADER = """# Results

Written by `make bench`; `benchmarks/gateway_cost.py` describes the method.
Compare CPU time and ratios: rates and latencies include the client and other work on the machine.
CPU time is that of all processes of a side, without what they use when idle and without the
sandbox, which stands for REDCap and mail. Rate limits per client are off. Refused are responses
503 and 504.
"""


def page(report: dict[str, Any]) -> str:
    """Return *report* as a Markdown page."""
    sections = [
        f"## {title}\n\n{_how(report[name])}\n\n{render(report[name])}"
        for name, (title, render) in _SECTIONS.items()
        if name in report
    ]
    return "\n".join([_HEADER, *sections])


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(str(cell) for cell in line)} |\n" for line in lines)


def _how(part: dict[str, Any]) -> str:
    settings, machine = part["settings"], part["machine"]
    return (
        f"Measured {part['measured']} on {machine['cores']} cores, Python {machine['python']},"
        f" load average {part['load_average']}: {settings['at_once']} connections,"
        f" {settings['rounds']} rounds of {settings['seconds']} s,"
        f" {float(settings['sampled']):.0%} of traces sampled."
    )


def _paths(part: dict[str, Any]) -> str:
    columns = (
        *("side", "request", "CPU µs", "bare ÷ CPU", "req/s", "÷ bare", "p50 ms", "p99 ms"),
        *("refused", "CPU µs by process"),
    )
    rows = [
        (one["side"], one["request"], *_figures(one), by_process(one["cpu_us_of"]))
        for one in part["rows"]
    ]
    idle = ", ".join(f"{name} {share} %" for name, share in part["idle_percent"].items())
    notes = [
        "A ratio of 0.5 means twice the cost of the bare Starlette handler.",
        f"Idle CPU of all processes, of a core: {idle}.",
        "Spans that are exported after a slice are not included; the variants below include them.",
        *([part["note"]] if part["note"] else []),
    ]
    return "\n".join(notes) + "\n\n" + table(columns, rows)


def by_process(costs: dict[str, int]) -> str:
    """Return the cost of each process, the largest first and the sandbox last."""
    ordered = sorted(costs.items(), key=lambda item: (item[0] in OUTSIDE, -item[1]))
    return ", ".join(
        f"({name} {cost})" if name in OUTSIDE else f"{name} {cost}" for name, cost in ordered
    )


def _figures(one: dict[str, Any]) -> tuple[object, ...]:
    return (
        *(one["cpu_us"], one["reference_to_cpu"]),
        *(one["requests_per_second"], one["rate_to_reference"]),
        *(one["p50_ms"], one["p99_ms"], one["refused"]),
    )


def _sessions(part: dict[str, Any]) -> str:
    columns = (
        *("side", "sessions", "CPU µs", "one session ÷ CPU", "req/s"),
        *("refused", "memory of gateway and auth, MB"),
    )
    rows = [
        (side["side"], *(row[name] for name in _SESSION_FIELDS))
        for side in part["sides"]
        for row in side["rows"]
    ]
    note = (
        "Measured for the lifetime of a user token, so that each session is verified once more.\n\n"
    )
    return note + table(columns, rows)


_SESSION_FIELDS = ("sessions", "cpu_us", "one_to_cpu", "requests_per_second", "refused", "mb")


def _variants(part: dict[str, Any]) -> str:
    columns = (
        *("variant", "CPU µs", "5 % ÷ CPU", "req/s", "÷ 5 %", "p50 ms", "p99 ms"),
        *("refused", "idle, % of a core", "CPU µs by process"),
    )
    rows = [
        (one["variant"], *_figures(one), one["idle_percent"], by_process(one["cpu_us_of"]))
        for one in part["rows"]
    ]
    note = (
        "`GET /api/v1/me` through sidecars, half as many rounds of 2.5 s; the CPU time of the\n"
        "5 s after each counts, because spans are exported every 5 s.\n\n"
    )
    return note + table(columns, rows)


def _growth(part: dict[str, Any]) -> str:
    figures = ("requests_per_second", "cpu_us", "p50_ms", "p99_ms", "refused")
    columns = ("req/s", "CPU µs", "p50 ms", "p99 ms", "refused")

    def rows(kind: str, first: str, *more: str) -> list[list[object]]:
        return [[one[name] for name in (first, *figures, *more)] for one in part[kind]]

    return "\n".join(
        [
            "`GET /api/v1/me` through sidecars; all processes of the product on some cores:\n",
            table(("cores", *columns), rows("cores", "cores")),
            "Offered rates, latencies from when a request was due:\n",
            table(("offered req/s", *columns), rows("rates", "offered")),
            "Lists of ten requests that are not cached, by the number of records in REDCap:\n",
            table(("records", *columns, "sandbox µs"), rows("records", "records", "sandbox_us")),
        ]
    )


def _chassis(part: dict[str, Any]) -> str:
    bare = part["calls"]["bare grpc.aio"]
    calls = [(name, cost, f"{cost - bare:+.0f}") for name, cost in part["calls"].items()]
    return (
        "One call, client and server together, and single checks; the minimum of all rounds.\n\n"
        + table(("call", "CPU µs", "to bare"), calls)
        + "\n"
        + table(("check", "CPU µs"), part["checks"].items())
    )


_SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "paths": ("Paths", _paths),
    "sessions": ("Sessions in rotation", _sessions),
    "variants": ("Telemetry and replicas", _variants),
    "growth": ("Growth", _growth),
    "chassis": ("Layers of one call", _chassis),
}
