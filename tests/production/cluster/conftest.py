"""One control plane for all tests of this folder."""

from collections.abc import Iterator

import pytest

from mesh.deploy import kubernetes_check
from mesh.deploy.check import ISTIO, KUBERNETES
from tests.production.cluster import pod, pods, programs, xds
from tests.production.cluster.control_plane import ControlPlane, Resource, eventually
from tests.production.cluster.running_mesh import Mesh

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
_CERTIFICATE = (("cert", "crt"), ("key", "key"))
WORKLOADS = {"edge", "gateway", "auth", "survey", "health"}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd, API server, controllers, istiod, and every definition that the manifests need."""
    try:
        found = programs.find()
    except programs.ProgramsError as error:
        pytest.skip(str(error))
    plane = ControlPlane(tmp_path_factory.mktemp("cluster") / "state", found)
    try:
        plane.start(ISTIO / "istiod-values.yaml")
        plane.apply(COLLECTOR)
        yield plane
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def installed(cluster: ControlPlane) -> list[Resource]:
    """The overlay dev, applied; returns its resources."""
    resources = kubernetes_check.build(KUBERNETES / "overlays" / "dev")
    apply(cluster, resources)
    # As cert-manager would.
    files = [f"--{kind}={cluster.folder}/pki/edge.{end}" for kind, end in _CERTIFICATE]
    cluster.kubectl("-n", "amarre-edge", "create", "secret", "tls", "edge-tls", *files)
    return resources


@pytest.fixture(scope="session")
def dumps(
    cluster: ControlPlane, installed: list[Resource], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, xds.Dump]:
    """What istiod sends to the proxy of each workload."""
    assert installed
    found: dict[str, Resource] = {}

    def running() -> bool:
        found.update(pods.run(cluster))
        return set(found) >= WORKLOADS

    assert eventually(running), f"no pods of {WORKLOADS - set(found)}"
    return {name: xds.fetch(cluster, found[name]) for name in WORKLOADS}


@pytest.fixture(scope="session")
def mesh(
    cluster: ControlPlane, installed: list[Resource], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mesh]:
    """A pod of each workload, ready."""
    assert installed
    if reason := pod.why_not():
        pytest.skip(reason)
    running = Mesh(cluster, tmp_path_factory.mktemp("mesh"))
    try:
        running.open()
        yield running
    finally:
        running.close()


def apply(cluster: ControlPlane, resources: list[Resource], *flags: str) -> None:
    """Apply *resources*, namespaces first, since they are missing in a dry run otherwise."""
    spaces = [r for r in resources if r["kind"] == "Namespace"]
    cluster.apply(spaces)
    cluster.apply(resources, *flags)
