"""dev, staging and production: one base, other sizes, names and components."""

from collections.abc import Iterable
from dataclasses import dataclass

from mesh.render.deployment import Deployment, Workload
from mesh.render.docker import version
from mesh.render.environment import SITE
from mesh.render.kubernetes.components import SITE_VALUES, site_values
from mesh.render.kubernetes.workloads import IMAGE, MOST_REPLICAS, REPLICAS
from mesh.render.manifest import Files, Resource, inline, kustomization, resource


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
        "One replica each, against a REDCap project for trials.",
    ),
    Overlay(
        "staging",
        f"staging.{SITE}",
        2,
        4,
        ("external-secrets", "monitoring", "rollouts", "blue-green", "site"),
        "production",
        "As production, smaller; new versions stand beside the old ones until a person says so.",
    ),
    Overlay(
        "production",
        SITE,
        REPLICAS,
        MOST_REPLICAS,
        ("external-secrets", "monitoring", "rollouts", "site"),
        "production",
        "Three replicas each, canaries judged by the objectives of the contracts.",
    ),
)


def every(deployed: Deployment) -> dict[str, Files]:
    """Return the overlays by name."""
    return {overlay.name: _files(overlay, deployed) for overlay in OVERLAYS}


def _files(overlay: Overlay, deployed: Deployment) -> Files:
    files = Files()
    files.add(
        "site.yaml",
        "What this site says of itself; change it here, kustomize writes it everywhere.",
        resource(
            "v1 ConfigMap",
            SITE_VALUES,
            metadata={"annotations": {"config.kubernetes.io/local-config": "true"}},
            data=site_values(deployed, overlay.host),
        ),
    )
    images = [
        {"name": f"{IMAGE}/{workload.name}", "newTag": version()} for workload in deployed.workloads
    ]
    files.add(
        "kustomization.yaml",
        f"{overlay.why}\nInstall: kubectl apply -k mesh/deploy/kubernetes/overlays/{overlay.name}",
        kustomization(
            resources=["../../base", "site.yaml"],
            components=[f"../../components/{name}" for name in overlay.components],
            images=images,
            patches=list(_patches(overlay, deployed)),
        ),
    )
    return files


def _patches(overlay: Overlay, deployed: Deployment) -> Iterable[Resource]:
    for workload in deployed.workloads:
        if overlay.replicas != REPLICAS:
            yield _patch("Deployment", workload, ("/spec/replicas", overlay.replicas))
            yield _patch(
                "HorizontalPodAutoscaler",
                workload,
                ("/spec/minReplicas", overlay.replicas),
                ("/spec/maxReplicas", overlay.most_replicas),
            )
        if overlay.environment != "production":
            yield _patch("ConfigMap", workload, ("/data/AMARRE_ENV", overlay.environment))
        if "rollouts" in overlay.components and workload.is_grpc and overlay.replicas != REPLICAS:
            yield _patch("Rollout", workload, ("/spec/replicas", overlay.replicas))


def _patch(kind: str, workload: Workload, *values: tuple[str, object]) -> Resource:
    operations = [{"op": "replace", "path": path, "value": value} for path, value in values]
    return {
        "target": {"kind": kind, "name": workload.name, "namespace": workload.namespace},
        "patch": inline(operations),
    }
