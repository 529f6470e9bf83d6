"""The overlays, built for a cluster, and their checks."""

import copy
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from mesh.contract import policy
from mesh.deploy import kubernetes_check as check
from mesh.deploy.check import KUBERNETES
from mesh.render import deployment, kubernetes, registry
from mesh.render.deployment import Workload

Resource = dict[str, Any]
DEPLOYED = deployment.load(policy.load())
FILES = kubernetes.render()
BASE = [
    yaml.safe_load(text)
    for name, text in FILES.items()
    if name.startswith("base/") and not name.endswith("kustomization.yaml")
]
needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed"
)


@pytest.fixture(scope="module")
def production() -> list[Resource]:
    return check.build(KUBERNETES / "overlays" / "production")


def find(resources: list[Resource], kind: str, name: str) -> Resource:
    (found,) = [r for r in resources if r["kind"] == kind and r["metadata"]["name"] == name]
    return found


def test_committed() -> None:
    """
    The committed files are up to date with topology and contracts.
    """
    assert [] == registry.drift(FILES, registry.committed("kubernetes"))


@needs_kubectl
class TestProduction:
    def test_no_fault(self, production: list[Resource]) -> None:
        """
        The production overlay builds, and the checks find no problems.
        """
        assert [] == check.faults(production)

    def test_identities(self, production: list[Resource]) -> None:
        """
        Every pod has the service account of its SPIFFE id, in its namespace.
        """
        for workload in DEPLOYED.workloads:
            pod = find(production, "Deployment", workload.name)
            account = pod["spec"]["template"]["spec"]["serviceAccountName"]
            namespace = pod["metadata"]["namespace"]

            assert workload.principal == f"amarre.local/ns/{namespace}/sa/{account}"

    def test_replicas(self, production: list[Resource]) -> None:
        """
        At least three replicas, which only the autoscalers set: of the services' rollouts, and of
        the gateway's deployment.
        """
        for workload in DEPLOYED.workloads:
            scaler = find(production, "HorizontalPodAutoscaler", workload.name)["spec"]
            kind = "Rollout" if workload.is_grpc else "Deployment"

            assert 3 == scaler["minReplicas"]
            assert kind == scaler["scaleTargetRef"]["kind"]
            for owned in {kind, "Deployment"}:
                assert "replicas" not in find(production, owned, workload.name)["spec"]

    def test_canary_names_routes_that_exist(self, production: list[Resource]) -> None:
        """
        A rollout changes the weights of exactly the routes with weights.
        """
        for service in policy.load().services:
            istio = find(production, "Rollout", service.name)["spec"]["strategy"]["canary"]
            named = istio["trafficRouting"]["istio"]["virtualService"]["routes"]
            routes = find(production, "VirtualService", service.name)["spec"]["http"]

            assert [r["name"] for r in routes if len(r["route"]) == 2] == named

    def test_verdict(self, production: list[Resource]) -> None:
        """
        A canary is judged by the objective of every unary method.
        """
        for service in policy.load().services:
            metrics = find(production, "AnalysisTemplate", service.name)["spec"]["metrics"]
            by_name = {m["name"]: m for m in metrics}
            for method in service.methods:
                fast = by_name.get(f"{method.name}-fast".lower())
                if fast is not None:
                    bound = f'le="{method.objective.latency.total_seconds()}"'
                    assert bound in fast["provider"]["prometheus"]["query"]
                    assert str(method.objective.latency_share) in fast["successCondition"]

    def test_site_reaches_everything(self, production: list[Resource]) -> None:
        """
        The values of a site replace every example host name.
        """
        path = KUBERNETES / "overlays" / "production" / "site.yaml"
        text = path.read_text().replace("example.org", "example.edu")
        with check.overlay_with(KUBERNETES, "external-secrets", site=text) as built:
            left = [
                check.place(r)
                for r in built
                if "example.org" in yaml.safe_dump(r).replace("registry.example.org", "")
            ]

        assert ["ClusterIssuer -/amarre"] == left

    @pytest.mark.parametrize("key", ["redcap-host", "host"])
    def test_missing_site_value(self, key: str) -> None:
        """
        A site with a missing value is rejected with its name.
        """
        site = yaml.safe_load((KUBERNETES / "overlays/production/site.yaml").read_text())
        del site["data"][key]

        with (
            pytest.raises(check.BuildError, match=f"data.{key}"),
            check.overlay_with(KUBERNETES, site=yaml.safe_dump(site)),
        ):
            pass

    def test_job_of_the_rules(self, production: list[Resource]) -> None:
        """
        The operator's scrape jobs have the job label that rules and dashboards use.
        """
        (monitor,) = [r for r in production if r["kind"] == "PodMonitor"]
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        jobs = [r for r in endpoint["relabelings"] if r.get("targetLabel") == "job"]

        assert ["amarre"] == [r["replacement"] for r in jobs]

    def test_unknown_overlay(self) -> None:
        """
        An unknown overlay is rejected by name.
        """
        with pytest.raises(check.BuildError, match=r"^test: "):
            check.build(KUBERNETES / "overlays" / "test")


def without_secret(resources: list[Resource]) -> None:
    data = find(resources, "ExternalSecret", "auth")["spec"]["data"]
    data[:] = [d for d in data if d["secretKey"] != "smtp-password"]


def as_root(resources: list[Resource]) -> None:
    pod = find(resources, "Deployment", "survey")["spec"]["template"]["spec"]
    pod["securityContext"]["runAsNonRoot"] = False


def misspelt(resources: list[Resource]) -> None:
    find(resources, "Service", "survey")["spec"]["prots"] = []


def unknown_kind(resources: list[Resource]) -> None:
    find(resources, "VirtualService", "survey")["kind"] = "VirtualServise"


def relabelled(resources: list[Resource]) -> None:
    pod = find(resources, "Deployment", "auth")["spec"]["template"]
    pod["metadata"]["labels"]["app"] = "auth-primary"


def twice(resources: list[Resource]) -> None:
    resources.append(find(resources, "Service", "auth"))


def no_account(resources: list[Resource]) -> None:
    resources.remove(find(resources, "ServiceAccount", "gateway"))


def latest(resources: list[Resource]) -> None:
    pod = find(resources, "Deployment", "survey")["spec"]["template"]["spec"]
    pod["containers"][0]["image"] = "registry.example.org/amarre/survey:latest"


@needs_kubectl
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without_secret, "nothing creates smtp-password of the secret auth"),
        (as_root, "Deployment amarre-surveys/survey: pods may run as root"),
        (misspelt, "Service amarre-surveys/survey"),
        (unknown_kind, "is an unknown kind"),
        (relabelled, "AuthorizationPolicy amarre-auth/auth: no pod has the labels"),
        (twice, "Service amarre-auth/auth: is defined twice"),
        (no_account, "there is no ServiceAccount amarre-app/gateway"),
        (latest, "has no version"),
    ],
)
def test_found(
    production: list[Resource], damage: Callable[[list[Resource]], None], said: str
) -> None:
    """
    The checks detect each kind of error, with the location.
    """
    damaged = copy.deepcopy(production)
    damage(damaged)

    assert any(said in fault for fault in check.faults(damaged))


class TestNetwork:
    @pytest.mark.parametrize("caller", DEPLOYED.workloads, ids=lambda w: w.name)
    @pytest.mark.parametrize("callee", DEPLOYED.workloads, ids=lambda w: w.name)
    def test_packets_follow_the_contract(self, caller: Workload, callee: Workload) -> None:
        """
        Network policies permit packets to a service's port exactly where the contract has a call,
        at both ends.
        """
        expected = callee in DEPLOYED.callees(caller.name)

        assert expected is permits(callee, "ingress", "from", caller, callee.port)
        if caller is not callee:
            assert expected is permits(caller, "egress", "to", callee, callee.port)

    def test_nothing_by_default(self) -> None:
        """
        Every namespace denies by default, in both directions.
        """
        for namespace in DEPLOYED.namespaces:
            (found,) = [
                r["spec"]
                for r in BASE
                if r["kind"] == "NetworkPolicy"
                and r["metadata"] == {"name": "deny-by-default", "namespace": namespace}
            ]

            assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} == found


def permits(subject: Workload, direction: str, side: str, other: Workload, port: int) -> bool:
    """Return whether the policies of *subject* permit packets from or to *other*."""
    applying = [
        r["spec"]
        for r in BASE
        if r["kind"] == "NetworkPolicy"
        and r["metadata"]["namespace"] == subject.namespace
        and r["spec"]["podSelector"].get("matchLabels", {"app": subject.name})["app"]
        == subject.name
    ]
    return any(
        port in [p["port"] for p in rule["ports"]] and any(_is(peer, other) for peer in rule[side])
        for spec in applying
        for rule in spec.get(direction, [])
    )


def _is(peer: Resource, workload: Workload) -> bool:
    if "ipBlock" in peer:
        return False
    namespace = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    app = peer.get("podSelector", {}).get("matchLabels", {}).get("app", workload.name)
    return (namespace, app) == (workload.namespace, workload.name)
