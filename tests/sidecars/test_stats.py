"""The statistics of a proxy for Prometheus, and nothing else of its admin interface."""

from dataclasses import replace

import httpx
import pytest

from mesh.chassis.testing import free_port
from tests.sidecars.support.bed import Bed

pytestmark = pytest.mark.envoy


async def test_statistics_alone(bed: Bed) -> None:
    """
    The listener serves only statistics; paths that could stop the proxy or reveal its configuration
    are not available, however the path is written.
    """
    socket = f"unix:{bed.folder}/none.sock"
    address = f"127.0.0.1:{free_port()}"
    await bed.start(replace(bed.proxy("gateway", "gateway", app=socket), stats=address))

    async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
        found = await client.get("/stats/prometheus")
        assert 200 == found.status_code
        assert "envoy_server_live" in found.text

        refused = [
            await client.request(method, path)
            for method, path in (
                ("POST", "/quitquitquit"),
                ("POST", "/stats/prometheus"),
                ("GET", "/"),
                ("GET", "/config_dump"),
                ("GET", "/stats/prometheus/../../config_dump"),
                ("GET", "/stats%2fprometheus"),
                ("GET", "/stats/prometheus/"),
            )
        ]
        assert {400, 404} >= {answer.status_code for answer in refused}
        assert 200 == (await client.get("/stats/prometheus")).status_code
