"""Production matches the contracts and the local Envoys."""

from pathlib import Path

import pytest

from mesh.contract import policy
from mesh.local.processes import envoy
from mesh.render import deployment
from tests.production.cluster.policy.comparison import callers, rows
from tests.production.cluster.policy.conftest import WORKLOADS
from tests.production.cluster.policy.table import Row, by_option
from tests.production.cluster.policy.validation import refusal
from tests.production.cluster.policy.xds import Dump
from tests.production.programs import ROOT

PAGE = ROOT / "docs" / "reference" / "policy-targets.md"
DEPLOYED = deployment.load(policy.load())
DIFFERENCES = {
    "trace sampling percentage": (
        "Production samples 5 % of traces at the root; a local mesh keeps every trace."
    ),
    "access log fields": (
        "Istio's lines have cluster and route instead of service and direction, which the labels "
        "of their pod contain."
    ),
    "maximum connection duration, inbound": (
        "Callers' proxies close their connections after 60 s; Istio has no setting for callees."
    ),
    "stream idle timeout": (
        "The local edge disables it once the route is known, and shortens it under memory "
        "pressure. Routes of Istio have no such timeout, so 60 s must suffice for event streams."
    ),
    "timeouts scaled under memory pressure": (
        "On Istio, the stream idle timeout also ends calls that wait for a response, so it is not"
        " scaled; unfinished headers have 10 s in both."
    ),
    "maximum concurrent requests per service at the edge": (
        "A limit at the edge cannot depend on the number of gateway replicas; each replica "
        "rejects requests that have waited too long."
    ),
}
"""Options in which Istio differs from the contract or the local Envoys, each with its reason."""


@pytest.fixture(scope="module")
def found(dumps: dict[str, Dump]) -> list[Row]:
    return list(rows(DEPLOYED, dumps))


def test_no_other_difference(found: list[Row]) -> None:
    """
    Every value from istiod is that of the contract, unless a reason is given.
    """
    wrong = [row for row in found if not row.same and row.option not in DIFFERENCES]

    assert [] == wrong


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_envoy_accepts_it(dumps: dict[str, Dump], tmp_path: Path, name: str) -> None:
    """
    A real Envoy accepts everything that istiod sends to a workload.
    """
    assert "" == refusal(dumps[name].raw, tmp_path, str(envoy.binary()))


def test_envoy_refuses_nonsense(dumps: dict[str, Dump], tmp_path: Path) -> None:
    """
    The check is effective: an unknown field is rejected.
    """
    damaged = {**dumps["survey"].raw, "cluster": {"name": "x", "nonsense": 1}}

    assert "nonsense" in refusal(damaged, tmp_path, str(envoy.binary()))


def test_every_reason_is_needed(found: list[Row]) -> None:
    """
    There is no reason for a difference that no longer exists.
    """
    assert set(DIFFERENCES) == {row.option for row in found if not row.same}


def test_every_rpc(found: list[Row]) -> None:
    """
    Callers and deadline of every method are compared.
    """
    for option in ("callers", "deadline"):
        places = {row.where.split(" from ")[0] for row in found if row.option == option}

        assert {method.name for method in DEPLOYED.mesh} == places


def test_a_difference_is_found(dumps: dict[str, Dump]) -> None:
    """
    The comparison detects an additional caller: without its filters, a callee accepts everyone.
    """
    dump, callee = dumps["survey"], DEPLOYED.workload("survey")
    method = DEPLOYED.mesh.method("survey.ListRequests")
    chains = dump.inbound(callee.port)
    kept = [(c, c["filters"]) for c in chains]
    for chain in chains:
        chain["filters"] = []
    try:
        wrong = {row.option for row in callers(DEPLOYED, method, callee, dump) if not row.same}
    finally:
        for chain, filters in kept:
            chain["filters"] = filters

    assert "callers" in wrong


def test_page(found: list[Row]) -> None:
    """
    The page of options and targets is the result of this comparison, and is rewritten if it
    changed.
    """
    text = page(found)
    changed = not PAGE.is_file() or PAGE.read_text() != text
    if changed:
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(text)

    assert not changed, f"{PAGE} was out of date and has been written; commit it"


def page(found: list[Row]) -> str:
    """Return the page that shows *found*."""
    intro = (
        "How each option of the contracts arrives at the proxies: the local Envoys of `amarre up` "
        "and Compose, and Istio's.\n"
        "`make test-cluster` asks a real istiod for the configuration of every workload, compares "
        "it value by value, and writes this page; a difference without a reason fails the test."
    )
    lines = [
        "# Policy by target",
        "",
        intro,
        "",
        "| option | compared | local Envoy | Istio |",
        "| --- | --- | --- | --- |",
    ]
    for option, group in by_option(found).items():
        state = "differs, see below" if option in DIFFERENCES else "as declared"
        lines.append(f"| {option} | {len(group)} | as declared | {state} |")
    lines += ["", "## Differences", "", "| option | local Envoy | Istio | why |"]
    lines += ["| --- | --- | --- | --- |"]
    for option, group in by_option(found).items():
        if option in DIFFERENCES:
            row = next(r for r in group if not r.same)
            local, istio = (_short(value) for value in (row.expected, row.istio))
            lines.append(f"| {option} | {local} | {istio} | {DIFFERENCES[option]} |")
    return "\n".join(lines) + "\n"


def _short(value: object) -> str:
    if value is None:
        return "not set"
    return f"`{', '.join(value) if isinstance(value, list) else value}`"
