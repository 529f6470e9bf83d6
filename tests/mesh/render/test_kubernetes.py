"""Properties of the Kubernetes manifests that a real control plane depends on."""

import re
import shutil
from typing import Any

import pytest
import yaml

from mesh.contract import policy
from mesh.deploy import kubernetes_check as check
from mesh.deploy.check import KUBERNETES
from mesh.render import deployment, kubernetes
from mesh.render.docker import version
from mesh.render.kubernetes.components import site_values

Resource = dict[str, Any]
DEPLOYED = deployment.load(policy.load())
FILES = kubernetes.render()
needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed"
)


def base(name: str) -> Resource:
    found: Resource = yaml.safe_load(FILES[f"base/{name}.yaml"])
    return found


def test_edge_may_list_its_secrets() -> None:
    """
    The edge may list the secrets of its namespace, which istiod requires, and it is the only
    workload there.
    """
    (rule,) = base("role-edge")["rules"]

    assert {"get", "list", "watch"} == set(rule["verbs"])
    assert "resourceNames" not in rule
    assert "amarre-edge" == base("role-edge")["metadata"]["namespace"]
    assert "amarre-edge" == base("certificate-edge")["metadata"]["namespace"]
    assert "amarre-edge" not in {w.namespace for w in DEPLOYED.workloads}


def test_replicas_have_one_owner() -> None:
    """
    Autoscaled resources do not set replicas, which each apply would reset.
    """
    scaled = {
        (r["spec"]["scaleTargetRef"]["kind"], r["metadata"]["name"])
        for r in (yaml.safe_load(text) for name, text in FILES.items() if "autoscaler" in name)
    }

    assert {("Deployment", w.name) for w in DEPLOYED.workloads} == scaled
    for name, text in FILES.items():
        resource = yaml.safe_load(text)
        if resource["kind"] in {"Deployment", "Rollout"} and not name.endswith("edge.yaml"):
            assert "replicas" not in resource["spec"], name


@pytest.mark.parametrize(
    ("name", "callee"),
    [
        ("outbound|3001|stable|survey.amarre-surveys.svc.cluster.local", "survey"),
        ("outbound|3001||survey.amarre-surveys.svc.cluster.local;", "survey"),
        ("outbound|443||redcap.example.org;", "redcap"),
        ("inbound|3001||;", None),
        ("xds-grpc;", None),
    ],
)
def test_callee_of_a_cluster(name: str, callee: str | None) -> None:
    """
    Scraped series name the callee with the label and the value that rules and dashboards use.
    """
    monitor = yaml.safe_load(FILES["components/monitoring/pod-monitor-mesh.yaml"])
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    relabeling, *_ = endpoint["metricRelabelings"]
    found = re.fullmatch(relabeling["regex"], name)

    assert (["cluster_name"], "envoy_cluster_name") == (
        relabeling["sourceLabels"],
        relabeling["targetLabel"],
    )
    assert callee == (found and found[1])


@pytest.mark.parametrize("namespace", DEPLOYED.namespaces)
def test_names_are_resolved_everywhere(namespace: str) -> None:
    """
    Pods reach the cluster's DNS, NodeLocal DNSCache and the DNS of OpenShift.

    Source:
        Kubernetes, "Using NodeLocal DNSCache in Kubernetes Clusters"; OpenShift, "DNS Operator".
    """
    (rule,) = base(f"network-policy-{namespace}-dns")["spec"]["egress"]
    spaces = {
        p["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for p in rule["to"]
        if "namespaceSelector" in p
    }

    assert {"kube-system", "openshift-dns"} == spaces
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in rule["to"]
    assert {(p["protocol"], p["port"]) for p in rule["ports"]} == {
        (protocol, port) for protocol in ("TCP", "UDP") for port in (53, 5353)
    }


@needs_kubectl
class TestVersion:
    def test_one_value_upgrades_everything(self) -> None:
        """
        The version of ``site.yaml`` becomes the tag of every image and part of the name of the
        migration, since a Job cannot be changed.
        """
        site = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": "site",
                "annotations": {"config.kubernetes.io/local-config": "true"},
            },
            "data": {**site_values(DEPLOYED), "version": "9.8.7"},
        }
        with check.overlay_with(KUBERNETES, "external-secrets", site=yaml.safe_dump(site)) as built:
            pods = list(check.pods(built))

        images = {c["image"] for _, t in pods for c in t["spec"]["containers"]} - {"auto"}
        jobs = [r["metadata"]["name"] for r, _ in pods if r["kind"] == "Job"]

        assert {f"registry.example.org/amarre/{w.name}:9.8.7" for w in DEPLOYED.workloads} == images
        assert ["migrate-auth-9.8.7"] == jobs

    def test_standard(self) -> None:
        """
        The overlays have the version that they were rendered from.
        """
        built = check.build(KUBERNETES / "overlays" / "production")
        jobs = [r["metadata"]["name"] for r in built if r["kind"] == "Job"]

        assert [f"migrate-auth-{version()}"] == jobs

    @pytest.mark.parametrize(("name", "replicas"), [("dev", 1), ("staging", 2), ("production", 3)])
    def test_size(self, name: str, replicas: int) -> None:
        """
        An overlay has as many replicas of the edge as configured, and at least as many of the
        others.
        """
        built = check.build(KUBERNETES / "overlays" / name)
        edges = [
            r["spec"]["replicas"]
            for r in built
            if (r["kind"], r["metadata"]["name"]) == ("Deployment", "edge")
        ]
        least = {r["spec"]["minReplicas"] for r in built if r["kind"] == "HorizontalPodAutoscaler"}

        assert ([replicas], {replicas}) == (edges, least)


def leads_to_the_edge(resource: Resource) -> bool:
    return re.search(r"amarre-edge\b(?!-)", yaml.safe_dump(resource)) is not None


@needs_kubectl
@pytest.mark.parametrize("variant", ["ingress-nginx", "ingress-traefik"])
def test_other_ingress(variant: str) -> None:
    """
    Another ingress leaves nothing of the edge behind, may call the gateway and verifies its
    identity.
    """
    with check.overlay_with(KUBERNETES, "external-secrets", variant) as built:
        left = [
            check.place(r) for r in built if re.search(r"amarre-edge\b(?!-)", yaml.safe_dump(r))
        ]
        certificates = [check.place(r) for r in built if r["kind"] == "Certificate"]
        (exported,) = [
            r["spec"]["exportTo"]
            for r in built
            if (r["kind"], r["metadata"]["name"]) == ("DestinationRule", "gateway")
        ]

    assert ["NetworkPolicy amarre-app/gateway"] == left
    assert ["Certificate amarre-app/edge-tls"] == certificates
    assert 2 == len(exported)
