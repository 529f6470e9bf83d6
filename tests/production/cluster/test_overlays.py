"""A real API server, with Istio's webhooks, accepts everything that is rendered."""

import json
from collections.abc import Iterator

import pytest
import yaml

from mesh.contract import policy
from mesh.deploy import kubernetes_check
from mesh.deploy.check import KUBERNETES
from tests.production.cluster.conftest import apply
from tests.production.cluster.control_plane import (
    ControlPlane,
    ControlPlaneError,
    Resource,
    as_list,
)

OVERLAYS = ("dev", "staging", "production")
VARIANTS = (
    ("ingress-nginx",),
    ("ingress-traefik",),
    ("monitoring",),
    ("rollouts",),
    ("rollouts", "blue-green"),
)


@pytest.fixture
def other_namespaces(cluster: ControlPlane) -> None:
    """The namespaces of other ingress controllers, which are not part of the mesh."""
    names = ("ingress-nginx", "traefik")
    cluster.apply(
        [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n}} for n in names]
    )


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlay(cluster: ControlPlane, installed: list[Resource], name: str) -> None:
    """
    Every overlay passes strict validation, CEL, Pod Security and Istio's webhooks.
    """
    assert installed
    apply(cluster, kubernetes_check.build(KUBERNETES / "overlays" / name), "--dry-run=server")


@pytest.mark.usefixtures("other_namespaces")
@pytest.mark.parametrize("components", VARIANTS, ids="+".join)
def test_variant(
    cluster: ControlPlane, installed: list[Resource], components: tuple[str, ...]
) -> None:
    """
    So does every optional component of an overlay.
    """
    assert installed
    with kubernetes_check.overlay_with(KUBERNETES, "external-secrets", *components) as built:
        apply(cluster, built, "--dry-run=server")


def test_webhook_refuses(cluster: ControlPlane, installed: list[Resource]) -> None:
    """
    The webhook is effective: an invalid Istio resource is rejected.
    """
    rule = next(
        r for r in installed if (r["kind"], r["metadata"]["name"]) == ("DestinationRule", "auth")
    )
    twice = {**rule, "spec": {**rule["spec"], "exportTo": [".", "amarre-auth"]}}

    with pytest.raises(ControlPlaneError, match="duplicate"):
        cluster.apply([twice], "--dry-run=server")


def test_pod_security(cluster: ControlPlane, installed: list[Resource]) -> None:
    """
    Pods with injected proxies exist, so the restricted profile admits them.
    """
    assert installed
    pods = cluster.get("pods", "-A")
    names = {c["name"] for p in pods for c in p["spec"].get("initContainers", [])}

    assert {"edge", "gateway", "auth", "survey", "health"} <= {
        p["metadata"]["labels"].get("app") for p in pods
    }
    assert "istio-proxy" in names
    with pytest.raises(ControlPlaneError, match="PodSecurity"):
        cluster.apply([_root("amarre-app")], "--dry-run=server")


def test_resource_of_proxies(installed: list[Resource], cluster: ControlPlane) -> None:
    """
    Injected proxies report instance, version and environment like their process.
    """
    assert installed
    (pod,) = [
        p for p in cluster.get("pods", "-A") if p["metadata"]["labels"].get("app") == "survey"
    ]
    containers = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
    (proxy,) = [c for c in containers if c["name"] == "istio-proxy"]
    names = [variable["name"] for variable in proxy["env"]]
    found = next(v["value"] for v in proxy["env"] if v["name"] == "OTEL_RESOURCE_ATTRIBUTES")

    assert "service.instance.id=$(POD_NAME)" in found
    assert found.endswith("deployment.environment.name=development")
    # Kubernetes only fills in variables that are defined before.
    assert names.index("POD_NAME") < names.index("OTEL_RESOURCE_ATTRIBUTES")


def _root(namespace: str) -> Resource:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "root", "namespace": namespace},
        "spec": {"containers": [{"name": "root", "image": "x:1"}]},
    }


def test_unchanged(cluster: ControlPlane, installed: list[Resource]) -> None:
    """
    Applying the same overlay again changes nothing.
    """
    before = list(_specs(cluster, installed))
    apply(cluster, installed)

    assert before == list(_specs(cluster, installed))


def test_edge_gets_its_certificate(cluster: ControlPlane, installed: list[Resource]) -> None:
    """
    istiod's access review of the edge's permission to list secrets is granted; no other account of
    the mesh has it.
    """
    assert installed
    may = ("auth", "can-i", "list", "secrets", "--all-namespaces=false")

    def answer(namespace: str, account: str) -> str:
        who = f"system:serviceaccount:{namespace}:{account}"
        return cluster.try_kubectl(*may, "-n", namespace, "--as", who).stdout.strip()

    assert "yes" == answer("amarre-edge", "edge")
    assert "no" == answer("amarre-app", "gateway")


def test_upgrade(cluster: ControlPlane, installed: list[Resource]) -> None:
    """
    A new version with another contract is applied while the migration of the old one exists.
    """
    assert installed
    site = yaml.safe_load((KUBERNETES / "overlays/dev/site.yaml").read_text())
    site["data"]["version"] = "9.9.9"
    with kubernetes_check.overlay_with(
        KUBERNETES, "external-secrets", site=yaml.safe_dump(site)
    ) as built:
        new = [_replaced(r) for r in built]
    apply(cluster, new)
    jobs = {r["metadata"]["name"] for r in cluster.get("jobs", "-n", "amarre-auth")}
    (routes,) = [
        r for r in cluster.get("virtualservices", "-A") if r["metadata"]["name"] == "survey"
    ]

    assert {"migrate-auth-9.9.9"} < jobs
    assert "7s" in {r["timeout"] for r in routes["spec"]["http"]}
    apply(cluster, installed)


def _replaced(resource: Resource) -> Resource:
    """Return *resource* with the changed contract, if it is a service's routes."""
    if (resource["kind"], resource["metadata"]["name"]) != ("VirtualService", "survey"):
        return resource
    text = json.dumps(resource)
    method = next(m for m in policy.load() if m.service == "survey" and not m.stays_open)
    old = f"{method.deadline.total_seconds():g}s"
    changed: Resource = json.loads(text.replace(f'"timeout": "{old}"', '"timeout": "7s"'))
    return changed


def test_analysis(cluster: ControlPlane, installed: list[Resource]) -> None:
    """
    `istioctl analyze` reports neither errors nor warnings for the installed mesh.
    """
    assert installed
    done = cluster.istioctl("analyze", "-A", "--kubeconfig", str(cluster.kubeconfig), "-o", "json")
    said = [f"{m['code']} {m.get('origin', '')}: {m['message']}" for m in _messages(done.stdout)]

    assert [] == said


def _messages(output: str) -> list[Resource]:
    found: list[Resource] = json.loads(output) if output.strip() else []
    return [m for m in found if m["level"] in {"Error", "Warning"}]


def _specs(cluster: ControlPlane, resources: list[Resource]) -> Iterator[Resource]:
    """
    Yield the server's state of *resources*, without fields that it and controllers update over
    time.
    """
    found = cluster.kubectl("get", "-f", "-", "-o", "json", text=as_list(resources))
    held = json.loads(found)["items"]
    for one in held:
        metadata = {
            key: value
            for key, value in one["metadata"].items()
            if key not in {"resourceVersion", "managedFields", "annotations"}
        }
        rest = {key: value for key, value in one.items() if key not in {"metadata", "status"}}
        yield {**rest, "metadata": metadata}
