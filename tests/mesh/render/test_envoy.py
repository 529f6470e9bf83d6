"""Envoy's files match the contracts, and Envoy accepts them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.contract import policy
from mesh.contract.policy import Method
from mesh.local.processes import envoy
from mesh.render.envoy import Traffic, files, live_files, render, standard_placement
from mesh.render.envoy.routes import STREAM_MARGIN
from mesh.render.yaml_text import document
from mesh.topology import clients_of

MESH = policy.load()
PROXIES = {proxy.workload: proxy for proxy in standard_placement()}
METHODS = [pytest.param(method, id=method.short_name) for method in MESH]
CLUSTERS = {service.name: ("127.0.0.1:1",) for service in MESH.services}


def outbound(method: Method, traffic: Traffic | None = None) -> list[dict[str, Any]]:
    """Return the routes of *method* at its first caller."""
    caller = PROXIES[method.callers[0]]
    text = live_files(MESH, caller, CLUSTERS, traffic or Traffic())["routes/egress.yaml"]
    (routes,) = yaml.safe_load(text)["resources"]
    return [
        route
        for host in routes["virtual_hosts"]
        for route in host["routes"]
        if route["match"].get("path") == method.path
    ]


def bootstrap(workload: str) -> dict[str, Any]:
    """Return the bootstrap of the Envoy of *workload*."""
    found: dict[str, Any] = yaml.safe_load(
        files(MESH, PROXIES[workload], CLUSTERS, Traffic())["envoy.yaml"]
    )
    return found


def filters(workload: str) -> Iterator[dict[str, Any]]:
    """Yield the HTTP filters of the inbound listener."""
    for listener in bootstrap(workload)["static_resources"]["listeners"]:
        if listener["name"] == "inbound":
            manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
            yield from manager["http_filters"]


class TestRoutes:
    @pytest.mark.parametrize("method", METHODS)
    def test_retries_only_where_the_contract_allows(self, method: Method) -> None:
        """
        A route has retries exactly if the method is idempotent and not a stream.
        """
        (route,) = outbound(method)
        assert method.may_retry is ("retry_policy" in route["route"])

    @pytest.mark.parametrize("method", METHODS)
    def test_deadline(self, method: Method) -> None:
        """
        No call exceeds the deadline of its contract, whatever the caller requests. Proxies could
        only reset a stream, so they leave it to the caller and the service for a second more.
        """
        (route,) = outbound(method)
        limits = route["route"]["max_stream_duration"]
        if method.streams:
            late = (method.deadline + STREAM_MARGIN).total_seconds()
            assert {"max_stream_duration": f"{late:g}s"} == limits
        else:
            seconds = f"{method.deadline.total_seconds():g}s"
            assert {"max_stream_duration": seconds, "grpc_timeout_header_max": seconds} == limits

    @pytest.mark.parametrize("method", METHODS)
    def test_lasting_streams_have_limits_of_their_own(self, method: Method) -> None:
        """
        Long-lived streams do not count towards the limit of calls.
        """
        (route,) = outbound(method)
        expected = "HIGH" if method.stays_open else "DEFAULT"
        assert expected == route["route"].get("priority", "DEFAULT")

    def test_canary_takes_its_share_and_the_header(self) -> None:
        """
        With a canary, a method has a route for the header and one with both weights.
        """
        by_header, shared = outbound(
            MESH.method("survey.ListRequests"), Traffic(weights={"survey": 25})
        )
        weights = {
            one["name"]: one["weight"] for one in shared["route"]["weighted_clusters"]["clusters"]
        }
        assert "survey_canary" == by_header["route"]["cluster"]
        assert {"survey": 75, "survey_canary": 25} == weights

    @pytest.mark.parametrize("workload", sorted(PROXIES))
    def test_callers_reach_only_whom_they_call(self, workload: str) -> None:
        """
        A process has routes to the services that the contracts permit it to call.
        """
        text = live_files(MESH, PROXIES[workload], CLUSTERS, Traffic())["routes/egress.yaml"]
        hosts = yaml.safe_load(text)["resources"][0]["virtual_hosts"]
        assert set(clients_of(MESH)[workload]) == {host["name"] for host in hosts}


class TestAuthorization:
    @pytest.mark.parametrize("method", METHODS)
    def test_token_where_the_contract_asks_for_one(self, method: Method) -> None:
        """
        Tokens are verified for exactly the methods with a session rule.
        """
        found = [f for f in filters(method.service) if "jwt_authn" in f["name"]]
        paths = {r["match"]["path"] for f in found for r in f["typed_config"]["rules"]}
        assert method.needs_session is (method.path in paths)

    @pytest.mark.parametrize("method", METHODS)
    def test_refusals_name_the_contract_line(self, method: Method) -> None:
        """
        The policy that denies a call names the permitted callers and the contract line.
        """
        deny = next(f for f in filters(method.service) if f["name"].endswith("deny"))
        names = deny["typed_config"]["rules"]["policies"]
        expected = f"{method.short_name} allows {', '.join(method.callers)} ({method.source})"
        assert expected in names


class TestText:
    def test_strings_that_yaml_would_misread(self) -> None:
        """
        Strings remain strings for YAML 1.1 parsers.
        """
        values = {"a": "n", "b": "on", "c": "1.5", "d": "1:20", "e": "null", "f": "y"}
        text = document("x", values)
        assert values == yaml.safe_load(text)
        assert "'n'" in text
        assert "'y'" in text

    def test_comments(self) -> None:
        """
        A comment is placed above the keys of its dictionary and is not a key itself.
        """
        text = document("x", {"list": [{"#": "a: 'comment'", "key": 1}]})
        assert "- # a: 'comment'\n" in text
        assert {"list": [{"key": 1}]} == yaml.safe_load(text)

    def test_same_bytes(self) -> None:
        """
        The same contracts give the same bytes.
        """
        assert render() == render()


@pytest.mark.envoy
@pytest.mark.parametrize("workload", sorted(PROXIES))
def test_envoy_accepts_them(workload: str, tmp_path: Path, svids: Path) -> None:
    """
    ``envoy --mode validate`` accepts the committed files.
    """
    places = {"/etc/amarre": str(tmp_path), "/run/amarre/certs": str(svids)}
    name = PROXIES[workload].name
    for path, text in render().items():
        if path.startswith(f"{name}/"):
            for old, new in places.items():
                text = text.replace(old, new)
            target = tmp_path / "envoy" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
    config = str(tmp_path / "envoy" / name / "envoy.yaml")
    command = [str(envoy.binary()), "--mode", "validate", "-c", config]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
