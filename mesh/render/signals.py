"""
The schema of signals, combined with the contracts.

The *matrix* lists the telemetry that each method must emit, and the *edges* the permitted calls
between workloads; a test compares a running mesh with both.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from mesh.chassis.telemetry import names
from mesh.contract import policy
from mesh.contract.policy import Mesh

Files = dict[str, str]


@dataclass(frozen=True)
class Expected:
    """The telemetry of a call of one method: span, metric, access log line."""

    method: str
    span: str
    labels: Mapping[str, str]
    log: Mapping[str, str]


@functools.cache
def schema() -> Mapping[str, Any]:
    """Return ``mesh/observability/signals.yaml``."""
    text = resources.files("mesh.observability").joinpath("signals.yaml").read_text("utf-8")
    content: Mapping[str, Any] = yaml.safe_load(text)
    return content


def metric_names() -> frozenset[str]:
    """Return every metric name that a query may use: ours and third-party ones."""
    found = {name for group in schema()["foreign_metrics"].values() for name in group}
    for metric in schema()["metrics"]:
        found |= {f"{metric['name']}{suffix}" for suffix in _SUFFIXES[metric["type"]]}
    return frozenset(found)


_SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",), "gauge": ("",)}


def matrix(contract: Mesh) -> tuple[Expected, ...]:
    """Return the telemetry that each method of *contract* must emit."""
    return tuple(
        Expected(
            method=method.short_name,
            span=names.span_of(method.path),
            labels={"service": method.service, "method": method.name},
            log={"event": "call", "rpc": method.short_name},
        )
        for method in contract
    )


def edges(contract: Mesh) -> frozenset[tuple[str, str]]:
    """Return the permitted edges as (caller, service)."""
    return frozenset(edge for edge in contract.edges() if policy.ANY_CALLER not in edge)


def render() -> Files:
    """Return the signals reference page."""
    return {"signals.md": "\n".join(_page(policy.load())) + "\n"}


def _page(contract: Mesh) -> list[str]:
    known = schema()
    return [
        "# Signals",
        "",
        (
            "The telemetry of every process of the mesh."
            " Rendered from `mesh/observability/signals.yaml` and the contracts by"
            " `amarre render signals`; do not edit."
        ),
        "",
        "## Metrics",
        "",
        *_table(
            ("metric", "type", "labels", "from", "meaning"),
            [
                (
                    f"`{m['name']}`",
                    m["type"],
                    ", ".join(f"`{label}`" for label in m["labels"]),
                    m["emitter"],
                    m["means"],
                )
                for m in known["metrics"]
            ],
        ),
        "",
        "## Spans",
        "",
        *_table(
            ("span", "kind", "created by", "attributes"),
            [
                (
                    f"`{s['name']}`",
                    s["kind"],
                    s["made_by"],
                    ", ".join(f"`{name}`" for name in s["attributes"]),
                )
                for s in known["spans"]
            ],
        ),
        "",
        *_table(
            ("attribute", "meaning"),
            [(f"`{name}`", means) for name, means in known["attributes"].items()],
        ),
        "",
        "## Log lines",
        "",
        *_table(
            ("kind", "meaning"),
            [(f"`{name}`", means) for name, means in known["logs"]["kinds"].items()],
        ),
        "",
        *_table(
            ("field", "meaning"),
            [(f"`{name}`", means) for name, means in known["logs"]["fields"].items()],
        ),
        "",
        "## Each method",
        "",
        (
            "Each call emits a span, the metric"
            f" `{names.RPC_SERVER_DURATION}` and a line `call` with its `rpc`."
        ),
        "",
        *_table(
            ("method", "span", "callers", "latency objective", "availability objective"),
            [
                (
                    f"`{m.short_name}`",
                    f"`{names.span_of(m.path)}`",
                    ", ".join(f"`{caller}`" for caller in m.callers),
                    f"{m.objective.latency.total_seconds():g} s",
                    f"{m.objective.availability:.4g}",
                )
                for m in contract
            ],
        ),
    ]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
