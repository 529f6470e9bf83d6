"""
What the mesh tells of itself: the schema of signals, and what the contracts add to it.

The *matrix* says what each method must show after one call, and the *edges* who may be seen
calling whom; a test holds a running mesh to both.
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
    """What one method shows once it was called: its span, its metric, its access line."""

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
    """Return every series name that a query may use: ours and those of others."""
    found = {name for group in schema()["foreign_metrics"].values() for name in group}
    for metric in schema()["metrics"]:
        found |= {f"{metric['name']}{suffix}" for suffix in _SUFFIXES[metric["type"]]}
    return frozenset(found)


_SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",), "gauge": ("",)}


def matrix(contract: Mesh) -> tuple[Expected, ...]:
    """Return what each method of *contract* must show after one call."""
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
    """Return who may be seen calling whom, each as (caller, service)."""
    return frozenset(edge for edge in contract.edges() if policy.ANY_CALLER not in edge)


def render() -> Files:
    """Return the page about signals."""
    return {"signals.md": "\n".join(_page(policy.load())) + "\n"}


def _page(contract: Mesh) -> list[str]:
    known = schema()
    return [
        "# Signals",
        "",
        (
            "The telemetry of every process of the mesh."
            " Made from `mesh/observability/signals.yaml` and the contracts by"
            " `amarre render signals`; do not edit."
        ),
        "",
        "## Metrics",
        "",
        *_table(
            ("metric", "type", "labels", "from", "what it means"),
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
            ("span", "kind", "made by", "attributes"),
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
            ("attribute", "what it means"),
            [(f"`{name}`", means) for name, means in known["attributes"].items()],
        ),
        "",
        "## Log lines",
        "",
        *_table(
            ("kind", "what it tells"),
            [(f"`{name}`", means) for name, means in known["logs"]["kinds"].items()],
        ),
        "",
        *_table(
            ("field", "what it means"),
            [(f"`{name}`", means) for name, means in known["logs"]["fields"].items()],
        ),
        "",
        "## Each method",
        "",
        (
            "After one call each shows a span, the metric"
            f" `{names.RPC_SERVER_DURATION}` and a line `call` with its `rpc`."
        ),
        "",
        *_table(
            ("method", "span", "callers", "slow above", "available"),
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
