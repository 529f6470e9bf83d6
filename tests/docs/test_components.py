"""Diagrams of components have the calls of the contracts and of the topology."""

from dataclasses import replace

import pytest

from mesh import topology
from mesh.contract import policy
from tests.docs.diagrams import Diagram, edges, of

ARCHITECTURE = "docs/explanation/architecture.md"
DEPLOYMENT = "docs/explanation/deployment.md"
WORKLOADS = {process.name for process in topology.PROCESSES if process.identity}
CALLS = {
    (caller, callee)
    for caller, callees in topology.clients_of(policy.load()).items()
    for callee in callees
    if caller in WORKLOADS
}
NEEDS = {
    (process.name, need)
    for process in topology.PROCESSES
    for need in process.needs
    if need not in WORKLOADS
} | {("health", "redcap")}
"""What Health checks is a setting of a site; the example checks REDCap."""
NAMES = {
    "mail": "outbox",
    "edge": "gateway",
    "out": "gateway",
    **{f"{name[0]}e": name for name in WORKLOADS},
}
"""Nodes of the diagrams whose names differ from the topology: sidecars count as their workload."""
DIAGRAMS = {
    "components": (of(ARCHITECTURE, "Components"), True),
    "laptop": (of(DEPLOYMENT, "Laptops, CI and demos"), True),
    "compose": (of(DEPLOYMENT, "Staging on one host, with Compose"), False),
    "kubernetes": (of(DEPLOYMENT, "Production, on Kubernetes with Istio"), False),
}
"""Each with whether its environment has the console."""
each_diagram = pytest.mark.parametrize(
    ("diagram", "has_console"), DIAGRAMS.values(), ids=list(DIAGRAMS)
)


def missing(diagram: Diagram, *, has_console: bool) -> set[tuple[str, str]]:
    """Return the calls that *diagram* lacks, and those that nothing makes."""
    drawn = edges(diagram, NAMES)
    between = {edge for edge in drawn if set(edge) <= WORKLOADS}
    needs = {need for need in NEEDS if has_console or need[1] != "console"}
    return (between ^ CALLS) | (needs - drawn)


@each_diagram
def test_calls(diagram: Diagram, *, has_console: bool) -> None:
    """
    The diagram has exactly the calls between services that contracts declare, and what each needs.
    """
    assert set() == missing(diagram, has_console=has_console)


@each_diagram
def test_negative_control(diagram: Diagram, *, has_console: bool) -> None:
    """
    A call that is removed from or added to the diagram is found.
    """
    lines = diagram.text.splitlines()
    less = [
        replace(diagram, text="\n".join(lines[:at] + lines[at + 1 :])) for at in range(len(lines))
    ]
    more = replace(diagram, text=diagram.text + "  auth --> health\n")

    found = set().union(*(missing(one, has_console=has_console) for one in less))
    assert CALLS <= found
    assert {("auth", "health")} == missing(more, has_console=has_console)
