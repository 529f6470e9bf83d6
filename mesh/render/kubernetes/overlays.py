"""The overlays dev, staging and production: one base with different sizes, names and components."""

from collections.abc import Iterable
from dataclasses import dataclass

from mesh.render.deployment import EDGE, EDGE_NAMESPACE, Deployment
from mesh.render.environment import SITE
from mesh.render.kubernetes.components import SITE_VALUES, site_values
from mesh.render.kubernetes.edge import edge_proxy_config
from mesh.render.kubernetes.workloads import MOST_REPLICAS, PROXY_CONFIG, REPLICAS, proxy_config
from mesh.render.manifest import Files, Resource, inline, kustomization, resource

_PROXY = f"/spec/template/metadata/annotations/{PROXY_CONFIG.replace('/', '~1')}"


@dataclass(frozen=True)
class Overlay:
    """One environment."""

    name: str
    host: str
    replicas: int
    most_replicas: int
    components: tuple[str, ...]
    environment: str
    why: str


OVERLAYS = (
    Overlay(
        "dev",
        f"dev.{SITE}",
        1,
        2,
        ("external-secrets", "site"),
        "development",
        "One replica each, with a REDCap test project.",
    ),
    Overlay(
        "staging",
        f"staging.{SITE}",
        2,
        4,
        ("external-secrets", "monitoring", "rollouts", "blue-green", "site"),
        "production",
        "Like production, but smaller; new versions run next to old ones until they are promoted.",
    ),
    Overlay(
        "production",
        SITE,
        REPLICAS,
        MOST_REPLICAS,
        ("external-secrets", "monitoring", "rollouts", "site"),
        "production",
        "Three replicas each, with canaries judged by the objectives of the contracts.",
    ),
)


def every(deployed: Deployment) -> dict[str, Files]:
    """Return the overlays by name."""
    return {overlay.name: _files(overlay, deployed) for overlay in OVERLAYS}


def _files(overlay: Overlay, deployed: Deployment) -> Files:
    files = Files()
    files.add(
        "site.yaml",
        "The values of this site; kustomize copies each to every resource that needs it. To "
        "upgrade,\nchange the version and apply the overlay again.",
        resource(
            "v1 ConfigMap",
            SITE_VALUES,
            metadata={"annotations": {"config.kubernetes.io/local-config": "true"}},
            data=site_values(deployed, overlay.host),
        ),
    )
    files.add(
        "kustomization.yaml",
        f"{overlay.why}\nInstall: kubectl apply -k mesh/deploy/kubernetes/overlays/{overlay.name}",
        kustomization(
            resources=["../../base", "site.yaml"],
            components=[f"../../components/{name}" for name in overlay.components],
            patches=list(_patches(overlay, deployed)),
        ),
    )
    return files


def _patches(overlay: Overlay, deployed: Deployment) -> Iterable[Resource]:
    for workload in deployed.workloads:
        if overlay.replicas != REPLICAS:
            yield _patch(
                "HorizontalPodAutoscaler",
                workload.name,
                workload.namespace,
                ("/spec/minReplicas", overlay.replicas),
                ("/spec/maxReplicas", overlay.most_replicas),
            )
        if overlay.environment != "production":
            setting = ("/data/AMARRE_ENV", overlay.environment)
            yield _patch("ConfigMap", workload.name, workload.namespace, setting)
            proxy = (_PROXY, proxy_config(overlay.environment))
            yield _patch("Deployment", workload.name, workload.namespace, proxy)
    if overlay.environment != "production":
        proxy = (_PROXY, edge_proxy_config(overlay.environment))
        yield _patch("Deployment", EDGE, EDGE_NAMESPACE, proxy)
    if overlay.replicas != REPLICAS:
        yield _patch("Deployment", EDGE, EDGE_NAMESPACE, ("/spec/replicas", overlay.replicas))


def _patch(kind: str, name: str, namespace: str, *values: tuple[str, object]) -> Resource:
    operations = [{"op": "replace", "path": path, "value": value} for path, value in values]
    return {
        "target": {"kind": kind, "name": name, "namespace": namespace},
        "patch": inline(operations),
    }
