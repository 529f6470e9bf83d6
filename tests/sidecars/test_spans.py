"""The spans of a proxy, as received by a collector."""

from dataclasses import replace

import httpx

from mesh.chassis.testing import free_port
from mesh.render.envoy import Collector, Edge, Telemetry
from tests.mesh.chassis.telemetry import collecting
from tests.sidecars.support.bed import Bed, eventually

REQUESTS = 60


async def test_spans_of_the_edge(bed: Bed) -> None:
    """
    Many spans are one request to the collector, within a second or two, with its headers. They name
    method and route, and their resource identifies the proxy.
    """
    with collecting(free_port()) as collector:
        edge = Edge(http=f"127.0.0.1:{free_port()}")
        proxy = bed.proxy("gateway", "gateway", app=f"unix:{bed.folder}/none.sock")
        headers = (("authorization", "Bearer a+b/c=="),)
        traces = Collector(f"127.0.0.1:{collector.port}", headers)
        elsewhere = Collector("127.0.0.1:9")
        telemetry = Telemetry(traces=traces, logs=elsewhere, environment="production")
        await bed.start(replace(proxy, edge=edge, telemetry=telemetry))
        async with httpx.AsyncClient(base_url=f"http://{edge.http}", trust_env=False) as client:
            for _ in range(REQUESTS):
                await client.get("/api/v1/me")

        async def came() -> bool:
            sent = collector.resources["traces"]
            return REQUESTS == sum(len(s.spans) for one in sent for s in one.scope_spans)

        await eventually(came, "all spans", within=4.0)
        assert not collector.resources["logs"]
        assert "Bearer a+b/c==" == collector.metadata["traces"]["authorization"]
        found = collector.resources["traces"][0]
        facts = {fact.key: fact.value.string_value for fact in found.resource.attributes}
        identity = {
            "service.namespace": "amarre",
            "service.instance.id": facts["service.name"],
            "deployment.environment.name": "production",
        }
        assert identity.items() <= facts.items()
        assert facts["service.version"]
        spans = [span for one in found.scope_spans for span in one.spans]
        assert {"GET /api/v1/me"} == {span.name for span in spans}
        tags = ({fact.key: fact.value.string_value for fact in s.attributes} for s in spans)
        paths = {"http.route": "/api/v1/me", "url.template": "/api/v1/me"}
        assert all(paths.items() <= one.items() for one in tags)
        # By default, Envoy sends a request for every five spans.
        assert len(collector.resources["traces"]) <= REQUESTS / 10
