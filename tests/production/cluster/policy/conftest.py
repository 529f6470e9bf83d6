"""The configuration that istiod sends to the proxies."""

import pytest

from tests.production.cluster import pods
from tests.production.cluster.control_plane import ControlPlane, Resource, eventually
from tests.production.cluster.policy import xds

WORKLOADS = {"edge", "gateway", "auth", "survey", "health"}


@pytest.fixture(scope="package")
def dumps(cluster: ControlPlane, installed: list[Resource]) -> dict[str, xds.Dump]:
    """The configuration that istiod sends to the proxy of each workload."""
    assert installed
    found: dict[str, Resource] = {}

    def running() -> bool:
        found.update({pods.app(pod): pod for pod in pods.run(cluster)})
        return set(found) >= WORKLOADS

    assert eventually(running), f"no pods of {WORKLOADS - set(found)}"
    return {name: xds.fetch(cluster, found[name]) for name in WORKLOADS}
