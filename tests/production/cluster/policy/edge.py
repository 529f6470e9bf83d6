"""Compares the handling of browsers at the edge of mesh/envoy and at Istio's."""

import json
from collections.abc import Iterator
from typing import Any

import yaml

from mesh.render import registry
from tests.production.cluster.policy.table import Row, first
from tests.production.cluster.policy.xds import Dump, find

ENVOY = registry.committed("envoy") / "gateway-envoy" / "envoy.yaml"
EDGE = registry.committed("kubernetes") / "base/deployment-edge.yaml"
BOOTSTRAP = registry.committed("kubernetes") / "base/config-map-amarre-edge-proxy-bootstrap.yaml"
WHERE = "edge"
_OPTIONS = {
    "maximum size of request headers": "max_request_headers_kb",
    "maximum number of request headers": "max_headers_count",
    "headers with underscores": "headers_with_underscores_action",
    "maximum request size": "max_request_bytes",
    "request headers timeout": "request_headers_timeout",
    "request timeout": "request_timeout",
    "stream idle timeout": "stream_idle_timeout",
    "idle timeout of client connections": "idle_timeout",
    "maximum concurrent streams, clients": "max_concurrent_streams",
    "escaped slashes in paths, clients": "path_with_escaped_slashes_action",
    "rate limits per address and per session": "descriptors",
    "minimum TLS version, browsers": "tls_minimum_protocol_version",
}


def rows(dump: Dump) -> Iterator[Row]:
    """Yield the comparisons of the listener for HTTPS."""
    static = yaml.safe_load(ENVOY.read_text())
    listeners = static["static_resources"]["listeners"]
    local = next(one for one in listeners if one["name"] == "edge_https")
    istio = next(one for one in dump.listeners if one["name"].endswith("_8443"))
    for option, key in _OPTIONS.items():
        yield Row(option, WHERE, first(local, key), first(istio, key))
    yield Row("removed client headers", WHERE, _ignored(local), _ignored(istio))
    mine, theirs = (len(first(one, "mappers") or []) for one in (local, istio))
    yield Row("JSON error responses", WHERE, mine, theirs)
    told = (first(one, "request_headers_to_add") for one in (local, dump.routes))
    yield Row("request start time header", WHERE, *map(_added, told))
    yield Row("maximum client connections", WHERE, first(static, _CONNECTIONS), _connections())
    timers = (sorted(find(one, "timer")) for one in (static, _bootstrap()))
    yield Row("timeouts scaled under memory pressure", WHERE, *timers)
    requests = _most_requests(static["static_resources"]["clusters"])
    to_gateway = [c for name, c in dump.clusters.items() if "||gateway." in name]
    yield Row(
        "maximum concurrent requests per service at the edge",
        WHERE,
        requests,
        _most_requests(to_gateway),
    )


_CONNECTIONS = "max_active_downstream_connections"
_UNLIMITED = 2**32 - 1


def _connections() -> int:
    """Return the limit in the pods of Istio's edge, from which their agent makes the bootstrap."""
    annotations = yaml.safe_load(EDGE.read_text())["spec"]["template"]["metadata"]["annotations"]
    config = yaml.safe_load(annotations["proxy.istio.io/config"])
    return int(config["proxyMetadata"]["ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS"])


def _bootstrap() -> Any:
    """Return what the agent of the edge merges into the bootstrap."""
    return json.loads(yaml.safe_load(BOOTSTRAP.read_text())["data"]["custom_bootstrap.json"])


def _ignored(node: Any) -> list[str]:
    """Return the names and prefixes of the request headers that are removed first."""
    found = []
    for mutation in first(node, "mutations") or []:
        match = mutation.get("remove_on_match")
        found.append(f"{match['key_matcher']['prefix']}*" if match else mutation["remove"])
    return sorted(found)


def _added(headers: Any) -> list[str]:
    return sorted(f"{h['header']['key']}: {h['header']['value']}" for h in headers or [])


def _most_requests(clusters: Any) -> int | None:
    """Return the lowest limit of concurrent requests; None for no limit."""
    limits = [n for n in find(clusters, "max_requests") if n != _UNLIMITED]
    return min(limits, default=None)
