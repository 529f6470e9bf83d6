"""EnvoyFilters for what Istio's own resources cannot express; see also `make test-cluster`."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import yaml

from mesh.contract import policy
from mesh.contract.policy import Method
from mesh.render import deployment, istio
from mesh.render.envoy import clusters, errors
from mesh.render.envoy.routes import STREAM_MARGIN
from mesh.render.yaml_text import COMMENT

MESH = policy.load()
DEPLOYED = deployment.load(MESH)
FILES = istio.render()
METHODS = [pytest.param(m, id=m.short_name) for m in MESH]


def patches(workload: str) -> list[dict[str, Any]]:
    spec = yaml.safe_load(FILES[f"base/envoy-filter-{workload}.yaml"])["spec"]
    assert {"app": workload} == spec["workloadSelector"]["labels"]
    found: list[dict[str, Any]] = spec["configPatches"]
    return found


def routes(workload: str, context: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for patch in patches(workload):
        if patch["applyTo"] == "HTTP_ROUTE" and patch["match"]["context"] == context:
            yield patch["match"]["routeConfiguration"]["vhost"], patch["patch"]["value"]


@pytest.mark.parametrize("method", METHODS)
def test_deadline_at_both_ends(method: Method) -> None:
    """
    The deadline is a stream duration, which Envoy does not shorten to one attempt, at every caller
    and on every route of the method; the callee's proxy enforces it too. Both let streams end by
    themselves.
    """
    callee = DEPLOYED.workload(method.service)
    margin = STREAM_MARGIN if method.streams else timedelta()
    expected = f"{(method.deadline + margin).total_seconds():g}s"
    names = {method.name} if method.stays_open else {method.name, f"{method.name}-canary"}
    for caller in DEPLOYED.callers(callee.name):
        found = {
            where["route"]["name"]: value["route"]
            for where, value in routes(caller.name, "SIDECAR_OUTBOUND")
            if where["name"] == f"{callee.host}:{callee.port}" and where["route"]["name"] in names
        }

        assert names == set(found)
        for route in found.values():
            assert expected == route["max_stream_duration"]["max_stream_duration"]
            assert method.may_retry is ("hedge_policy" in route)
    (inbound,) = [
        value["route"]
        for _, value in routes(callee.name, "SIDECAR_INBOUND")
        if value["match"] == {"path": method.path}
    ]
    assert expected == inbound["max_stream_duration"]["max_stream_duration"]


@pytest.mark.parametrize("service", [pytest.param(s, id=s.name) for s in MESH.services])
def test_tokens(service: policy.Service) -> None:
    """
    Exactly the methods that require a user require a token; the key set is cached for only 30 s.
    """
    needed = {m.path for m in service.methods if m.needs_session}
    filters = [
        p["patch"]["value"]["typed_config"]
        for p in patches(service.name)
        if p["patch"]["operation"] == "REPLACE"
    ]

    assert bool(needed) is bool(filters)
    for config in filters:
        (provider,) = config["providers"].values()
        assert needed == {rule["match"]["path"] for rule in config["rules"]}
        assert "30s" == provider["remote_jwks"]["cache_duration"]
        assert "payload" == provider["payload_in_metadata"]


def test_error_details_at_both_ends() -> None:
    """
    Local replies have the error details of the contract, whichever proxy sends them.
    """
    for workload in DEPLOYED.workloads:
        configs = [
            (p["match"]["context"], p["patch"]["value"]["typed_config"])
            for p in patches(workload.name)
            if p["applyTo"] == "NETWORK_FILTER"
        ]
        ends = {c for c, config in configs if config.get("local_reply_config")}

        assert ("SIDECAR_INBOUND" in ends) is workload.is_grpc
        assert ("SIDECAR_OUTBOUND" in ends) is bool(DEPLOYED.callees(workload.name))
        for context, config in configs:
            replies = errors.grpc_replies(for_callers=context == "SIDECAR_INBOUND")
            assert config.get("local_reply_config") in (None, replies)


@pytest.mark.parametrize("caller", [pytest.param(w.name, id=w.name) for w in DEPLOYED.workloads])
def test_selection_of_replicas(caller: str) -> None:
    """
    Callers check the health of replicas and eject them like local Envoys.
    """
    found = {
        p["match"]["cluster"]["service"]: p["patch"]["value"]
        for p in patches(caller)
        if p["applyTo"] == "CLUSTER" and "health_checks" in p["patch"]["value"]
    }

    assert {
        callee.host: clusters.replica_selection(MESH.service(callee.name), callee.host)
        for callee in DEPLOYED.callees(caller)
    } == found


def test_no_comments() -> None:
    """
    Comments of Envoy's rendered files are removed, since Envoy would reject them as unknown fields.
    """
    for name, text in FILES.items():
        if "envoy-filter" in name:
            assert f"'{COMMENT}'" not in text
