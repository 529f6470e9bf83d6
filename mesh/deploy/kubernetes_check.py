"""Checks of built Kubernetes overlays: schemas, references, pod security."""

import contextlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which
from typing import Any

import yaml

from mesh.render.manifest import kustomization

Resource = dict[str, Any]
FOREIGN = frozenset(
    {
        "AnalysisTemplate",
        "AuthorizationPolicy",
        "Certificate",
        "ClusterIssuer",
        "DestinationRule",
        "EnvoyFilter",
        "ExternalSecret",
        "Gateway",
        "Middleware",
        "PeerAuthentication",
        "PodMonitor",
        "PrometheusRule",
        "RequestAuthentication",
        "Rollout",
        "ServiceEntry",
        "Sidecar",
        "Telemetry",
        "VirtualService",
    }
)
"""Kinds of third-party resource definitions; Istio's have separate tests."""
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class BuildError(Exception):
    """kustomize failed or is missing; the message has its output, or what to install."""


def build(folder: Path) -> list[Resource]:
    """
    Return the resources of a kustomization.

    Raises:
        BuildError: kubectl is missing or fails.
    """
    kubectl = which("kubectl")
    if kubectl is None:
        raise BuildError("kubectl is missing; install 1.30 or newer to check overlays")
    done = subprocess.run(  # noqa: S603 - a program of the PATH, a folder of ours
        [kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BuildError(f"{folder.name}: {done.stderr.strip()}")
    return [r for r in yaml.load_all(done.stdout, Loader=_LOADER) if r]


@contextlib.contextmanager
def overlay_with(root: Path, *components: str, site: str = "") -> Iterator[list[Resource]]:
    """
    Yield the base with *components*, as an overlay with the ``site.yaml`` *site* builds it.

    Raises:
        BuildError: As for `build`.
    """
    with tempfile.TemporaryDirectory(dir=root / "overlays", prefix=".check-") as name:
        folder = Path(name)
        standard = root / "overlays" / "production" / "site.yaml"
        (folder / "site.yaml").write_text(site or standard.read_text())
        (folder / "kustomization.yaml").write_text(
            yaml.safe_dump(
                kustomization(
                    resources=["../../base", "site.yaml"],
                    components=[f"../../components/{c}" for c in (*components, "site")],
                )
            )
        )
        yield build(folder)


def faults(resources: list[Resource]) -> list[str]:
    """Return the problems of *resources*, each with its location."""
    checks: tuple[Callable[[list[Resource]], Iterator[str]], ...] = (
        _schemas,
        _twice,
        _references,
        _selectors,
        _pods,
    )
    return [fault for check in checks for fault in check(resources)]


def place(resource: Resource) -> str:
    """Return kind, namespace and name."""
    metadata = resource["metadata"]
    return f"{resource['kind']} {metadata.get('namespace', '-')}/{metadata['name']}"


def _schemas(resources: list[Resource]) -> Iterator[str]:
    import kubernetes_validate as schemas

    version = schemas.latest_version()
    for resource in resources:
        try:
            schemas.validate(resource, version, strict=True)
        except schemas.SchemaNotFoundError:
            if resource["kind"] not in FOREIGN:
                yield f"{place(resource)}: {resource['apiVersion']} is an unknown kind"
        except schemas.ValidationError as error:
            where = ".".join(map(str, error.path))
            yield f"{place(resource)}: {where}: {error.message[:200]}"


def _twice(resources: list[Resource]) -> Iterator[str]:
    seen: set[str] = set()
    for resource in resources:
        if place(resource) in seen:
            yield f"{place(resource)}: is defined twice"
        seen.add(place(resource))


def pods(resources: list[Resource]) -> Iterator[tuple[Resource, Resource]]:
    """Yield every resource that creates pods, with its pod template."""
    for resource in resources:
        if resource["kind"] in {"Deployment", "Job", "StatefulSet"}:
            yield resource, resource["spec"]["template"]


def _references(resources: list[Resource]) -> Iterator[str]:
    there = {(r["kind"], r["metadata"].get("namespace"), r["metadata"]["name"]) for r in resources}
    namespaces = {r["metadata"]["name"] for r in resources if r["kind"] == "Namespace"}
    for resource in resources:
        namespace = resource["metadata"].get("namespace")
        if namespace and namespace not in namespaces:
            yield f"{place(resource)}: there is no namespace {namespace}"
    for resource, template in pods(resources):
        namespace = resource["metadata"]["namespace"]
        spec = template["spec"]
        wanted = [("ServiceAccount", spec["serviceAccountName"])]
        for container in spec["containers"]:
            wanted += [
                ("ConfigMap", source["configMapRef"]["name"])
                for source in container.get("envFrom", [])
            ]
        for kind, name in wanted:
            if (kind, namespace, name) not in there:
                yield f"{place(resource)}: there is no {kind} {namespace}/{name}"
        yield from _secrets(resource, spec, resources)


def _secrets(resource: Resource, spec: Resource, resources: list[Resource]) -> Iterator[str]:
    namespace = resource["metadata"]["namespace"]
    made = {
        r["spec"]["target"]["name"]: {d["secretKey"] for d in r["spec"]["data"]}
        for r in resources
        if r["kind"] == "ExternalSecret" and r["metadata"]["namespace"] == namespace
    }
    for volume in spec.get("volumes", []):
        secret = volume.get("secret")
        if secret is None:
            continue
        missing = {i["key"] for i in secret["items"]} - made.get(secret["secretName"], set())
        if missing:
            yield (
                f"{place(resource)}: nothing creates {', '.join(sorted(missing))} of the secret "
                f"{secret['secretName']}; add the component external-secrets or another source"
            )


def _selectors(resources: list[Resource]) -> Iterator[str]:
    """Every label selector must match a pod."""
    labels = [
        (r["metadata"]["namespace"], template["metadata"]["labels"])
        for r, template in pods(resources)
    ]
    for resource in resources:
        spec = resource.get("spec", {})
        for key in ("selector", "workloadSelector", "podSelector"):
            selector = spec.get(key)
            if not isinstance(selector, dict) or resource["kind"] in {"PodMonitor"}:
                continue
            wanted = selector.get("matchLabels") or selector.get("labels") or selector
            if not wanted or not all(isinstance(v, str) for v in wanted.values()):
                continue
            namespace = resource["metadata"]["namespace"]
            if not any(namespace == n and wanted.items() <= have.items() for n, have in labels):
                yield f"{place(resource)}: no pod has the labels {wanted}"


def _pods(resources: list[Resource]) -> Iterator[str]:
    for resource, template in pods(resources):
        spec = template["spec"]
        if not spec["securityContext"].get("runAsNonRoot"):
            yield f"{place(resource)}: pods may run as root"
        for container in spec["containers"]:
            security = container.get("securityContext", {})
            where = f"{place(resource)}, container {container['name']}"
            if not security.get("readOnlyRootFilesystem"):
                yield f"{where}: the root file system is writable"
            if security.get("allowPrivilegeEscalation") is not False:
                yield f"{where}: may gain privileges"
            if security.get("capabilities", {}).get("drop") != ["ALL"]:
                yield f"{where}: keeps capabilities"
            if "memory" not in container.get("resources", {}).get("limits", {}):
                yield f"{where}: has no memory limit"
            image, _, tag = container["image"].partition(":")
            if image != "auto" and tag in {"", "latest"}:  # Istio's injection replaces "auto".
                yield f"{where}: the image {image} has no version"
