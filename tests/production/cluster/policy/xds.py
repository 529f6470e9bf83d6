"""
Requests the configuration of a workload's proxy from istiod, like that proxy, without a proxy.
"""

import json
import queue
import re
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2

from tests.production.cluster.control_plane import ControlPlane, Resource, eventually

_V3 = "type.googleapis.com/envoy.config."
CDS, LDS = f"{_V3}cluster.v3.Cluster", f"{_V3}listener.v3.Listener"
RDS = f"{_V3}route.v3.RouteConfiguration"
_METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
_STRING, _MESSAGE, _BYTES = 9, 11, 12


def _messages() -> tuple[Any, Any]:
    """Return the required part of the discovery protocol, as message classes."""
    file = descriptor_pb2.FileDescriptorProto(
        name="ads.proto",
        package="ads",
        syntax="proto3",
        dependency=["google/protobuf/struct.proto"],
    )

    def message(name: str, *fields: tuple[int, str, int | str, bool]) -> None:
        one = file.message_type.add(name=name)
        for number, field, kind, repeated in fields:
            named = isinstance(kind, str)
            one.field.add(
                name=field,
                number=number,
                label=3 if repeated else 1,
                type=_MESSAGE if named else kind,
                type_name=kind if named else None,
            )

    struct = ".google.protobuf.Struct"
    message(
        "Node",
        (1, "id", _STRING, False),
        (2, "cluster", _STRING, False),
        (3, "metadata", struct, False),
    )
    message(
        "Request",
        (1, "version_info", _STRING, False),
        (2, "node", ".ads.Node", False),
        (3, "resource_names", _STRING, True),
        (4, "type_url", _STRING, False),
        (5, "response_nonce", _STRING, False),
    )
    message(
        "Response",
        (1, "version_info", _STRING, False),
        (4, "type_url", _STRING, False),
        (5, "nonce", _STRING, False),
    )
    pool = descriptor_pool.DescriptorPool()
    needed = descriptor_pb2.FileDescriptorProto()
    struct_pb2.DESCRIPTOR.CopyToProto(needed)
    pool.Add(needed)
    pool.Add(file)
    request, response = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ads.{name}"))
        for name in ("Request", "Response")
    )
    return request, response


REQUEST, RESPONSE = _messages()


class Dump:
    """The configuration of one proxy, with Envoy's own field names."""

    def __init__(self, raw: Any) -> None:
        """Read istiod's own dump of a connection."""
        self.raw = raw
        found = snake(raw)
        named = [c for c in find(found, "cluster") if isinstance(c, dict) and "name" in c]
        self.clusters: dict[str, Resource] = {c["name"]: c for c in named}
        self.routes = [r for r in find(found, "route_config") if isinstance(r, dict)]
        self.listeners = [r for r in find(found, "listener") if "name" in r]

    def route(self, port: int, path: str, *, canary: bool = False) -> Resource | None:
        """Return the outbound route of *path* at *port*."""
        for config in self.routes:
            if str(config.get("name")) != str(port):
                continue
            for host in config["virtual_hosts"]:
                for route in host.get("routes", []):
                    match = route["match"]
                    asks = any(h["name"] == "x-canary" for h in match.get("headers", []))
                    if match.get("path") == path and asks is canary:
                        found: Resource = route
                        return found
        return None

    @property
    def inbound_listener(self) -> Resource:
        """Return the listener for connections from other workloads."""
        return next(one for one in self.listeners if one["name"] == "virtualInbound")

    def inbound(self, port: int) -> list[Resource]:
        """Return the filter chains for connections to *port*."""
        return [
            chain
            for chain in self.inbound_listener["filter_chains"]
            if chain.get("filter_chain_match", {}).get("destination_port") == port
        ]


def find(node: Any, key: str) -> Iterator[Any]:
    """Yield every value of *key* in *node*."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from find(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from find(value, key)


def snake(node: Any) -> Any:
    """Return *node* with protobuf field names instead of those of its JSON."""
    if isinstance(node, list):
        return [snake(value) for value in node]
    if not isinstance(node, dict):
        return node
    return {
        name if name.startswith("@") or "." in name or "|" in name else _snake(name): snake(value)
        for name, value in node.items()
    }


def _snake(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])([A-Z])", lambda m: "_" + m[1].lower(), name)
    return words.replace("consecutive5xx", "consecutive_5xx")


def fetch(cluster: ControlPlane, pod: Resource) -> Dump:
    """Return the configuration that istiod sends to the proxy of *pod*."""
    metadata, spec = pod["metadata"], pod["spec"]
    app, namespace = metadata["labels"]["app"], metadata["namespace"]
    address = pod["status"]["podIP"]
    proxy = f"{metadata['name']}.{namespace}"
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    configs = [
        json.loads(variable["value"])
        for container in containers
        for variable in container.get("env") or []
        if variable["name"] == "PROXY_CONFIG"
    ]
    first = REQUEST(type_url=CDS)
    role = "router" if app == "edge" else "sidecar"
    first.node.id = f"{role}~{address}~{proxy}~{namespace}.svc.cluster.local"
    first.node.cluster = f"{app}.{namespace}"
    first.node.metadata.update(
        {
            "NAMESPACE": namespace,
            "NAME": metadata["name"],
            "LABELS": metadata["labels"],
            "CLUSTER_ID": "Kubernetes",
            "ISTIO_VERSION": "1.30.0",
            "SERVICE_ACCOUNT": spec["serviceAccountName"],
            "WORKLOAD_NAME": app,
            "INSTANCE_IPS": address,
            "MESH_ID": "amarre.local",
            "INTERCEPTION_MODE": "REDIRECT",
            "PROXY_CONFIG": configs[0] if configs else {},
            "UNPRIVILEGED_POD": "true",
        }
    )
    asked: queue.Queue[Any] = queue.Queue()
    answered: dict[str, threading.Event] = {kind: threading.Event() for kind in (CDS, LDS, RDS)}
    target = f"127.0.0.1:{cluster.ports['xds']}"
    with grpc.insecure_channel(
        target, options=[("grpc.max_receive_message_length", -1)]
    ) as channel:
        call = channel.stream_stream(
            _METHOD,
            request_serializer=REQUEST.SerializeToString,
            response_deserializer=RESPONSE.FromString,
        )
        stream = call(iter(asked.get, None))

        def read() -> None:
            try:
                for response in stream:
                    asked.put(
                        REQUEST(
                            type_url=response.type_url,
                            version_info=response.version_info,
                            response_nonce=response.nonce,
                            resource_names=names if response.type_url == RDS else [],
                        )
                    )
                    answered[response.type_url].set()
            except grpc.RpcError:
                return

        names: list[str] = []
        threading.Thread(target=read, daemon=True).start()
        asked.put(first)
        assert answered[CDS].wait(30), f"istiod sends no clusters to {app}"
        asked.put(REQUEST(type_url=LDS))
        assert answered[LDS].wait(30), f"istiod sends no listeners to {app}"
        names += sorted(set(find(snake(_dump(cluster, proxy)), "route_config_name")))
        asked.put(REQUEST(type_url=RDS, resource_names=names))
        assert answered[RDS].wait(30), f"istiod sends no routes to {app}"
        # The answer is recorded as sent a moment after it arrived.
        found = [Dump(_dump(cluster, proxy))]

        def complete() -> bool:
            found[0] = Dump(_dump(cluster, proxy))
            return {r["name"] for r in found[0].routes} >= set(names)

        assert eventually(complete), f"istiod's dump lacks routes of {app}"
        asked.put(None)
        stream.cancel()
    return found[0]


def _dump(cluster: ControlPlane, proxy: str) -> Any:
    url = f"http://127.0.0.1:{cluster.ports['debug']}/debug/config_dump?proxyID={proxy}"
    with urllib.request.urlopen(url, timeout=30) as response:
        return json.load(response)
