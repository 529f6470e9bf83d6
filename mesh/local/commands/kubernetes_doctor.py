"""``amarre doctor --kubernetes``: checks of a cluster before the manifests are applied."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import yaml

from mesh import topology
from mesh.local.commands.doctor import Finding
from mesh.render.istio.installation import TRACING

OLDEST_ISTIO = (1, 27, 1)
COLLECTOR = ("monitoring", "otel-collector", 4317)
STORE = "amarre"
_SECONDS, _REACH_SECONDS = 30, 5
_GUIDE = "docs/how-to/run-on-kubernetes.md"


class ClusterError(Exception):
    """The cluster cannot be read; the message says why and what to do."""


class Cluster:
    """Read-only access to a cluster through kubectl."""

    def __init__(self, context: str) -> None:
        """
        Connect to the cluster of *context*.

        Raises:
            ClusterError: kubectl is missing, the context is unknown, or the API server does not
                respond.
        """
        kubectl = shutil.which("kubectl")
        if kubectl is None:
            raise ClusterError("kubectl is missing: install 1.30 or newer.")
        self._command = [kubectl, "--context", context, f"--request-timeout={_SECONDS}s"]
        self._context = context
        self._reach()
        self.definitions = {one["metadata"]["name"] for one in self.get("crd")}

    def _reach(self) -> None:
        """Check, in a few seconds, that the context exists and its API server responds."""
        field = "jsonpath={.clusters[0].cluster.server}"
        server = self._run("config", "view", "--minify", "-o", field)
        if server is None or server.returncode or not server.stdout:
            raise ClusterError(
                f"kubectl has no context {self._context} with a cluster. List yours with: "
                "kubectl config get-contexts"
            )
        # One request; kubectl get would repeat the discovery of resources for a minute.
        done = self._run("get", "--raw", "/version", f"--request-timeout={_REACH_SECONDS}s")
        if done is None or (done.returncode and not _denied(done.stderr)):
            reason = _last_line(done.stderr) if done else "no response"
            raise ClusterError(
                f"The API server of context {self._context} cannot be reached at {server.stdout}: "
                f"{reason}. Start the cluster, or correct the address in your kubeconfig; it may "
                "require a VPN."
            )

    def get(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """
        Return the resources of *kind* that match *arguments*.

        Raises:
            ClusterError: The API server does not respond or denies access.
        """
        done = self._run("get", kind, *arguments, "-o", "json")
        if done is None:
            raise ClusterError(f"Context {self._context}: the API server does not respond.")
        if done.returncode:
            raise ClusterError(
                f"Context {self._context}: kubectl cannot read {kind}: {_last_line(done.stderr)}"
            )
        found: list[dict[str, Any]] = json.loads(done.stdout)["items"]
        return found

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str] | None:
        """Run kubectl; return None if it does not end."""
        try:
            return subprocess.run(  # noqa: S603 - kubectl, with arguments of this module
                [*self._command, *arguments],
                capture_output=True,
                text=True,
                timeout=2 * _SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None

    def named(self, kind: str, name: str, *arguments: str) -> dict[str, Any] | None:
        """Return the resource of *kind* named *name*, or None."""
        found = self.get(kind, "--field-selector", f"metadata.name={name}", *arguments)
        return found[0] if found else None


def _denied(output: str) -> bool:
    """Return whether an API server responded, but not to this user."""
    return "Unauthorized" in output or "Forbidden" in output or "must be logged in" in output


def _last_line(output: str) -> str:
    line = (output.strip().splitlines() or ["kubectl failed"])[-1].removeprefix("error: ")
    line = line.removeprefix("Unable to connect to the server: ")
    return line.partition(" - did you specify")[0]


def examine(context: str) -> list[Finding]:
    """
    Check every prerequisite listed in `mesh/deploy/kubernetes/README.md`.

    Raises:
        ClusterError: The cluster cannot be read.
    """
    cluster = Cluster(context)
    return [
        *_istio(cluster),
        _collector(cluster),
        _defined(
            cluster,
            "cert-manager",
            "certificates.cert-manager.io",
            "Install cert-manager; without it the edge has no HTTPS.",
        ),
        *_secrets(cluster),
        _defined(
            cluster,
            "Prometheus Operator",
            "podmonitors.monitoring.coreos.com",
            "Install Prometheus Operator for components/monitoring; without it, metrics are not "
            "scraped.",
            needed=False,
        ),
        _adapter(cluster),
        _defined(
            cluster,
            "Argo Rollouts",
            "rollouts.argoproj.io",
            "Install Argo Rollouts for components/rollouts and blue-green; no pod of a service "
            "starts there without it.",
            needed=False,
        ),
        _dns(cluster),
    ]


def _defined(
    cluster: Cluster, what: str, definition: str, advice: str, *, needed: bool = True
) -> Finding:
    return Finding(what, definition in cluster.definitions, advice, needed=needed)


def _istio(cluster: Cluster) -> Iterator[Finding]:
    least = ".".join(map(str, OLDEST_ISTIO))
    yield _defined(
        cluster,
        "Istio's resource definitions",
        "virtualservices.networking.istio.io",
        f"Install Istio's chart base, {least} or newer.",
    )
    images = [
        container["image"]
        for one in cluster.get("deployments", "-A", "-l", "app=istiod")
        for container in one["spec"]["template"]["spec"]["containers"]
    ]
    versions = [_version(image) for image in images]
    yield Finding(
        f"istiod {', '.join(images)}".strip(),
        # An image tag without a version is a deliberate choice.
        bool(images) and all(v is None or v >= OLDEST_ISTIO for v in versions),
        f"Install istiod {least} or newer with mesh/istio/istiod-values.yaml, see {_GUIDE}.",
    )
    meshes = [
        yaml.safe_load(one["data"]["mesh"])
        for one in cluster.get("configmaps", "-n", "istio-system")
        if "mesh" in one.get("data", {})
    ]
    yield Finding(
        "the mesh's values for istiod",
        any(_is_ours(mesh) for mesh in meshes),
        f"istiod lacks trust domain {topology.TRUST_DOMAIN} and provider {TRACING}. Install it "
        "with -f mesh/istio/istiod-values.yaml.",
    )
    yield Finding(
        "Istio's CNI plugin",
        bool(cluster.get("daemonsets", "-A", "-l", "k8s-app=istio-cni-node")),
        "Install Istio's chart cni: the namespaces forbid the privileges that injected pods need "
        "without it.",
    )


def _version(image: str) -> tuple[int, ...] | None:
    found = re.search(r":(\d+)\.(\d+)(?:\.(\d+))?", image)
    return tuple(int(part or 0) for part in found.groups()) if found else None


def _is_ours(mesh: dict[str, Any]) -> bool:
    providers = {one["name"] for one in mesh.get("extensionProviders", [])}
    return mesh.get("trustDomain") == topology.TRUST_DOMAIN and TRACING in providers


def _collector(cluster: Cluster) -> Finding:
    namespace, name, port = COLLECTOR
    service = cluster.named("services", name, "-n", namespace)
    ports = {one["port"] for one in service["spec"]["ports"]} if service else set()
    return Finding(
        f"Service {namespace}/{name}, port {port}",
        port in ports,
        f"Create it (kubectl -n {namespace} create service clusterip {name} --tcp={port}:{port}); "
        "Without it istiod drops all traces.",
    )


def _secrets(cluster: Cluster) -> Iterator[Finding]:
    kind = "clustersecretstores.external-secrets.io"
    yield _defined(
        cluster,
        "External Secrets Operator",
        kind,
        "Install External Secrets Operator, or leave out components/external-secrets and create "
        "the secrets yourself; pods wait for them.",
    )
    if kind in cluster.definitions:
        yield Finding(
            f"ClusterSecretStore {STORE}",
            cluster.named(kind, STORE) is not None,
            f"Create a ClusterSecretStore named {STORE} that points to your vault.",
        )


def _adapter(cluster: Cluster) -> Finding:
    found = cluster.named("apiservices", "v1beta1.custom.metrics.k8s.io")
    return Finding(
        "prometheus-adapter",
        found is not None,
        "Install prometheus-adapter; without it autoscaling only follows the CPU.",
        needed=False,
    )


def _dns(cluster: Cluster) -> Finding:
    found = (
        cluster.get("services", "-n", "kube-system", "-l", "k8s-app=kube-dns")
        or cluster.get("services", "-n", "openshift-dns")
        or cluster.get("daemonsets", "-n", "kube-system", "-l", "k8s-app=node-local-dns")
    )
    return Finding(
        "DNS in kube-system or openshift-dns",
        bool(found),
        "Replace network-policy-*-dns.yaml with policies that allow the cluster's DNS, or no "
        "name resolves.",
    )
