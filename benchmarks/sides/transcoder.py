"""Envoy's gRPC-JSON transcoder in front of the bare service: contracts and configuration."""

from pathlib import Path
from typing import Any

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

DESCRIPTORS = Path(__file__).parents[2] / "protos/gen/amarre/contract.binpb"


def write_contracts(file: Path) -> None:
    """Write the contracts for the transcoder, which does not support ``response_body``."""
    found = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
    for described in found.file:
        for service in described.service:
            for method in service.method:
                if method.options.HasExtension(annotations_pb2.http):
                    method.options.Extensions[annotations_pb2.http].response_body = ""
    file.write_bytes(found.SerializeToString())


def configuration(port: int, target: str, contracts: Path) -> dict[str, Any]:
    """Return the configuration of an Envoy that transcodes to the service at *target*."""
    kind = "type.googleapis.com/envoy.extensions."
    host, _, service = target.rpartition(":")
    manager = {
        "@type": f"{kind}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "service"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "transcoder",
                "typed_config": {
                    "@type": f"{kind}filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
                    "proto_descriptor": str(contracts),
                    "services": ["amarre.auth.v1.AuthService"],
                },
            },
            {
                "name": "router",
                "typed_config": {"@type": f"{kind}filters.http.router.v3.Router"},
            },
        ],
    }
    cluster = {
        "name": "service",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{kind}upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": "service",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(host, service)}}]}],
        },
    }
    listener = {
        "name": "in",
        "address": _address("127.0.0.1", port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(host: str, port: int | str) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": int(port)}}
