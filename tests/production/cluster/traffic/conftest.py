"""A mesh of real proxies and services for the tests in this folder."""

from collections.abc import Iterator

import pytest

from tests.production.cluster.control_plane import ControlPlane, Resource
from tests.production.cluster.traffic import network
from tests.production.cluster.traffic.running_mesh import Mesh


@pytest.fixture(scope="package")
def mesh(
    cluster: ControlPlane, installed: list[Resource], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mesh]:
    """A pod of each workload, ready."""
    assert installed
    if reason := network.why_not():
        pytest.skip(reason)
    running = Mesh(cluster, tmp_path_factory.mktemp("mesh"))
    try:
        running.open()
        yield running
    finally:
        running.close()
