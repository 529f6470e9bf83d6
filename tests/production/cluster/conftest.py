"""One control plane for all tests in this folder."""

import shutil
from collections.abc import Iterator

import pytest

from mesh.deploy import kubernetes_check
from mesh.deploy.check import ISTIO, KUBERNETES
from tests.production import programs
from tests.production.cluster import pki
from tests.production.cluster.control_plane import ControlPlane, Resource

COLLECTOR: list[Resource] = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}},
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "otel-collector", "namespace": "monitoring"},
        "spec": {"ports": [{"name": "grpc", "port": 4317}]},
    },
]
"""A prerequisite that `mesh/deploy/kubernetes/README.md` names."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """
    etcd, API server, controllers, istiod, and every resource definition that the manifests need.
    """
    if shutil.which("kubectl") is None:
        pytest.skip("The cluster tests need kubectl, which this machine does not have.")
    try:
        programs.find(programs.CLUSTER)
    except programs.MissingProgramsError as error:
        pytest.skip(str(error))
    plane = ControlPlane(tmp_path_factory.mktemp("cluster") / "state")
    try:
        plane.start(ISTIO / "istiod-values.yaml")
        plane.apply(COLLECTOR)
        yield plane
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def installed(cluster: ControlPlane) -> list[Resource]:
    """The applied overlay dev; returns its resources."""
    resources = kubernetes_check.build(KUBERNETES / "overlays" / "dev")
    apply(cluster, resources)
    renew_edge(cluster)
    return resources


def apply(cluster: ControlPlane, resources: list[Resource], *flags: str) -> None:
    """Apply *resources*, namespaces first, since a dry run requires them."""
    spaces = [r for r in resources if r["kind"] == "Namespace"]
    cluster.apply(spaces)
    cluster.apply(resources, *flags)


def renew_edge(cluster: ControlPlane) -> None:
    """Issue a new certificate for the edge, like cert-manager."""
    folder = cluster.folder / "pki"
    pki.renew(folder, "edge")
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "edge-tls", "namespace": "amarre-edge"},
        "type": "kubernetes.io/tls",
        "stringData": {
            f"tls.{end}": (folder / f"edge.{end}").read_text() for end in ("crt", "key")
        },
    }
    cluster.apply([secret])
