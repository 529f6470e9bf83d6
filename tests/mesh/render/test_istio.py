"""Istio's resources match the contracts."""

from typing import Any

import pytest
import yaml

from mesh.chassis.tokens import ISSUER
from mesh.contract import policy
from mesh.contract.policy import Method
from mesh.render import deployment, istio
from mesh.render.deployment import EDGE_NAMESPACE, Workload
from tests.mesh.render.authorization import Request, allowed

MESH = policy.load()
DEPLOYED = deployment.load(MESH)
FILES = istio.render()
RESOURCES = [
    yaml.safe_load(text)
    for name, text in FILES.items()
    if name.startswith("base/") and not name.endswith("kustomization.yaml")
]
METHODS = [pytest.param(m, id=m.short_name) for m in MESH]
CALLS = [pytest.param(m, id=m.short_name) for m in MESH if not m.stays_open]
STREAMS = [pytest.param(m, id=m.short_name) for m in MESH if m.stays_open]
IDENTITIES = ("gateway", "auth", "survey", "health", "operator", "edge", "stranger", "nobody")


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [r for r in RESOURCES if r["kind"] == kind]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = [r for r in of_kind(kind) if r["metadata"]["name"] == name]
    return found


def principal_of(identity: str) -> str:
    if identity == "nobody":
        return ""
    if identity == "edge":
        return "amarre.local/ns/amarre-edge/sa/edge"
    if identity in {"operator", "stranger"}:
        return f"amarre.local/ns/amarre-app/sa/{identity}"
    return DEPLOYED.workload(identity).principal


def request(workload: Workload, path: str, identity: str, **facts: Any) -> Request:
    facts = {"port": workload.port} | facts
    return Request(
        workload.namespace, workload.name, path, principal=principal_of(identity), **facts
    )


def signed_in(audience: str, *labels: str) -> dict[str, Any]:
    return {
        "request_principal": f"{ISSUER}/ada",
        "audience": audience,
        "labels": labels,
    }


class TestAuthorization:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("identity", IDENTITIES)
    def test_every_caller_and_method(self, method: Method, identity: str) -> None:
        """
        An otherwise valid caller is admitted exactly if the contract names it.
        """
        asked = request(
            DEPLOYED.workload(method.service),
            method.path,
            identity,
            **signed_in(method.service, *method.roles),
        )

        assert method.allows(identity) is allowed(of_kind("AuthorizationPolicy"), asked)

    @pytest.mark.parametrize("method", METHODS)
    def test_role(self, method: Method) -> None:
        """
        A user without the roles of a method is denied by the proxy.
        """
        asked = request(
            DEPLOYED.workload(method.service),
            method.path,
            method.callers[0],
            **signed_in(method.service, "applicant"),
        )

        assert (not method.roles) is allowed(of_kind("AuthorizationPolicy"), asked)

    @pytest.mark.parametrize("method", METHODS)
    def test_session(self, method: Method) -> None:
        """
        Without a user token, or with one for another service, only session-less methods work.
        """
        workload = DEPLOYED.workload(method.service)
        for token in ({}, signed_in("another")):
            asked = request(workload, method.path, method.callers[0], **token)

            assert (not method.needs_session) is allowed(of_kind("AuthorizationPolicy"), asked)

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize(
        "odd",
        [
            pytest.param({"content_type": "application/json"}, id="JSON"),
            pytest.param({"content_type": ""}, id="no content type"),
            pytest.param({"method": "GET"}, id="GET"),
            pytest.param({"port": 3004}, id="port of the key set"),
        ],
    )
    def test_odd_requests(self, method: Method, odd: dict[str, Any]) -> None:
        """
        Anything but a gRPC call to the service's port is rejected, from any caller.
        """
        asked = request(
            DEPLOYED.workload(method.service),
            method.path,
            method.callers[0],
            **signed_in(method.service),
            **odd,
        )

        assert not allowed(of_kind("AuthorizationPolicy"), asked)

    @pytest.mark.parametrize("name", ["auth", "survey", "health"])
    @pytest.mark.parametrize("identity", IDENTITIES)
    @pytest.mark.parametrize(
        "path",
        [
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ],
    )
    def test_health_and_reflection(self, name: str, identity: str, path: str) -> None:
        """
        Callers and operators may call health checks; only operators reflection, in both versions.
        """
        asked = request(DEPLOYED.workload(name), path, identity)
        callers = {w.name for w in DEPLOYED.callers(name)} if "Health" in path else set()
        expected = identity in callers | {"operator"}

        assert expected is allowed(of_kind("AuthorizationPolicy"), asked)

    @pytest.mark.parametrize("identity", IDENTITIES)
    def test_key_set(self, identity: str) -> None:
        """
        Only the services that verify user tokens can read the key set.
        """
        asked = request(
            DEPLOYED.workload("auth"),
            "/.well-known/jwks.json",
            identity,
            port=3004,
            method="GET",
            content_type="",
        )
        expected = identity in {"auth", "survey", "health"}

        assert expected is allowed(of_kind("AuthorizationPolicy"), asked)

    @pytest.mark.parametrize("identity", IDENTITIES)
    def test_gateway(self, identity: str) -> None:
        """
        The gateway is reachable only through the edge.
        """
        asked = request(DEPLOYED.workload("gateway"), "/", identity, method="GET")

        assert (identity == "edge") is allowed(of_kind("AuthorizationPolicy"), asked)

    def test_unknown_workload_in_each_namespace(self) -> None:
        """
        A workload without an authorization policy accepts no calls.
        """
        for namespace in DEPLOYED.namespaces:
            asked = Request(namespace, "new", "/x", 80, principal=principal_of("gateway"))

            assert not allowed(of_kind("AuthorizationPolicy"), asked)

    def test_mutual_tls(self) -> None:
        """
        Every namespace requires mutual TLS.
        """
        found = {r["metadata"]["namespace"]: r["spec"] for r in of_kind("PeerAuthentication")}

        assert {n: {"mtls": {"mode": "STRICT"}} for n in DEPLOYED.namespaces} == found

    def test_token_rules(self) -> None:
        """
        Tokens are verified if the contract requires a session, each for its own audience.
        """
        found = {
            r["metadata"]["name"]: r["spec"]["jwtRules"][0]
            for r in of_kind("RequestAuthentication")
        }

        assert {m.service for m in MESH if m.needs_session} == set(found)
        for name, rule in found.items():
            assert [name] == rule["audiences"]
            assert ISSUER == rule["issuer"]
            assert rule["forwardOriginalToken"]


def routes(service: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = named("VirtualService", service)["spec"]["http"]
    return found


def route(method: Method, **headers: str) -> dict[str, Any]:
    """Return the first matching route, like Envoy."""
    for candidate in routes(method.service):
        for match in candidate["match"]:
            wanted = {k: v["exact"] for k, v in match.get("headers", {}).items()}
            if match["uri"] == {"exact": method.path} and wanted.items() <= headers.items():
                return candidate
    raise AssertionError(f"{method.short_name} has no route")


class TestTraffic:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("headers", [{}, {"x-canary": "1"}], ids=["plain", "canary"])
    def test_timeout_and_retries(self, method: Method, headers: dict[str, str]) -> None:
        """
        A method's timeout is its deadline; it is retried only if the contract permits it.
        """
        found = route(method, **headers)

        assert f"{method.deadline.total_seconds():g}s" == found["timeout"]
        assert method.may_retry is (found["retries"]["attempts"] > 0)
        if method.may_retry:
            assert "unavailable" in found["retries"]["retryOn"]
            assert "5xx" not in found["retries"]["retryOn"]

    @pytest.mark.parametrize("method", CALLS)
    def test_weights(self, method: Method) -> None:
        """
        All calls go to the stable subset until a canary has weight; x-canary always selects it.
        """
        weights = {r["destination"]["subset"]: r["weight"] for r in route(method)["route"]}
        (canary,) = route(method, **{"x-canary": "1"})["route"]

        assert {"stable": 100, "canary": 0} == weights
        assert "canary" == canary["destination"]["subset"]

    @pytest.mark.parametrize("method", STREAMS)
    def test_streams(self, method: Method) -> None:
        """
        A long-lived stream has a separate circuit breaker, far above that of calls.
        """
        (destination,) = route(method)["route"]
        (subset,) = [
            s
            for s in named("DestinationRule", method.service)["spec"]["subsets"]
            if s["name"] == destination["destination"]["subset"]
        ]

        assert 1024 == subset["trafficPolicy"]["connectionPool"]["http"]["http2MaxRequests"]

    def test_every_route_states_its_retries(self) -> None:
        """
        Every route sets retries, since Istio would retry twice by default.
        """
        for service in of_kind("VirtualService"):
            for http in service["spec"]["http"]:
                assert {"retries", "timeout"} <= set(http), service["metadata"]["name"]
                assert "attempts" in http["retries"], service["metadata"]["name"]

    @pytest.mark.parametrize("service", [pytest.param(s, id=s.name) for s in MESH.services])
    def test_breakers(self, service: policy.Service) -> None:
        """
        Circuit breakers and ejection are those of service_policy, with a retry budget.
        """
        found = named("DestinationRule", service.name)["spec"]["trafficPolicy"]
        http = found["connectionPool"]["http"]

        assert service.max_concurrent_requests == http["http2MaxRequests"]
        assert service.max_pending_requests == http["http1MaxPendingRequests"]
        assert (
            service.outlier.consecutive_failures
            == (found["outlierDetection"]["consecutiveLocalOriginFailures"])
        )
        # UNAVAILABLE counts as a gateway error; it may be about a system behind the replica.
        assert found["outlierDetection"]["splitExternalLocalOriginErrors"]
        assert 0 == found["outlierDetection"]["consecutiveGatewayErrors"]
        assert (
            service.outlier.max_ejection_percent
            == (found["outlierDetection"]["maxEjectionPercent"])
        )
        assert 0 == found["outlierDetection"]["consecutive5xxErrors"]
        assert 20 == found["retryBudget"]["percent"]

    def test_server_identity(self) -> None:
        """
        Callers accept only the SPIFFE id of the workload behind the host.
        """
        for workload in DEPLOYED.workloads:
            tls = named("DestinationRule", workload.name)["spec"]["trafficPolicy"]["tls"]

            assert {"mode": "ISTIO_MUTUAL", "subjectAltNames": [workload.spiffe_id]} == tls

    def test_callers_see_what_they_call(self) -> None:
        """
        Routes and rules are exported to every calling namespace, and every proxy has the hosts that
        its workload calls in scope.
        """
        for caller in DEPLOYED.workloads:
            hosts = named("Sidecar", caller.name)["spec"]["egress"][0]["hosts"]
            for callee in DEPLOYED.callees(caller.name):
                assert f"{callee.namespace}/{callee.host}" in hosts
                for kind in ("VirtualService", "DestinationRule"):
                    exported = named(kind, callee.name)["spec"]["exportTo"]
                    assert {caller.namespace, "."} & set(exported)
                    assert caller.namespace in exported or caller.namespace == callee.namespace

    def test_exported_once(self) -> None:
        """
        No resource is exported to its own namespace both by name and as ".".

        Source:
            Istio's validation of exportTo refuses it as a duplicate.
        """
        for resource in RESOURCES:
            exported = resource["spec"].get("exportTo", [])

            assert resource["metadata"]["namespace"] not in exported
            assert len(exported) == len(set(exported))

    def test_edge_knows_the_identity_of_the_gateway(self) -> None:
        """
        The rule that pins the gateway's identity is exported to the namespace of the edge.
        """
        assert EDGE_NAMESPACE in named("DestinationRule", "gateway")["spec"]["exportTo"]

    def test_connections_without_a_name(self) -> None:
        """
        The warning about external services without host name is suppressed where it applies.
        """
        for entry in of_kind("ServiceEntry"):
            (port,) = entry["spec"]["ports"]
            suppressed = entry["metadata"].get("annotations", {})

            assert ("TCP" == port["protocol"]) is bool(suppressed)

    def test_filters_have_a_priority(self) -> None:
        """
        Every EnvoyFilter has a priority, since the order would be arbitrary otherwise.
        """
        for filters in of_kind("EnvoyFilter"):
            assert filters["spec"]["priority"] > 0

    def test_scope(self) -> None:
        """
        No proxy has a host in scope that its workload does not call.
        """
        for workload in DEPLOYED.workloads:
            hosts = set(named("Sidecar", workload.name)["spec"]["egress"][0]["hosts"])
            known = {f"{w.namespace}/{w.host}" for w in DEPLOYED.callees(workload.name)}
            known |= {f"./{e.host}" for e in DEPLOYED.reached_by(workload.name)}
            known |= {"monitoring/otel-collector.monitoring.svc.cluster.local"}
            if DEPLOYED.needs_keys(workload.name):
                known |= {"amarre-auth/auth.amarre-auth.svc.cluster.local"}

            assert hosts <= known
            assert all("*" not in host for host in hosts)

    def test_unix_sockets(self) -> None:
        """
        Every workload is reached only over its Unix socket.
        """
        for workload in DEPLOYED.workloads:
            for listener in named("Sidecar", workload.name)["spec"]["ingress"]:
                assert listener["defaultEndpoint"].startswith("unix:///run/amarre/")

    def test_streams_outlast_the_edge(self) -> None:
        """
        The edge permits every stream to last as long as its contract does.
        """
        edge = {h["name"]: h["timeout"] for h in routes("edge")}

        assert {"survey.WatchRequests", "health.WatchStatus", "log-out", "everything-else"} == set(
            edge
        )
        assert "602s" == edge["survey.WatchRequests"]
        assert "62s" == edge["everything-else"]
