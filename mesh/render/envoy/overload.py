"""Overload actions of a proxy, by memory pressure and number of connections."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from mesh.render.envoy.proxy import Proxy, typed

MIB = 1024 * 1024


class Capacity(NamedTuple):
    """Limits of a proxy."""

    connections: int
    heap_bytes: int
    """For connections and requests; the program itself takes another 40 MiB.

    An unused connection takes 8 KiB, a used one 16, one with TLS 21, one with half a request 45.
    """
    memory_bytes: int
    """For the container: every connection with half a request, and the program."""


EDGE = Capacity(connections=10_000, heap_bytes=192 * MIB, memory_bytes=512 * MIB)
INNER = Capacity(connections=1_000, heap_bytes=128 * MIB, memory_bytes=192 * MIB)
ISTIO_BYTES = 128 * MIB
"""What Istio's proxy needs beyond ours: its agent, and the configuration of the whole mesh."""
_SHRINK, _SHORTEST = 0.2, 0.3
"""Shares of the heap at which timeouts start to shrink, and are shortest."""
_UNDER_PRESSURE = "2s"
_HEADERS_WAIT = "HTTP_DOWNSTREAM_STREAM_IDLE"
_WAITS = ("HTTP_DOWNSTREAM_CONNECTION_IDLE", _HEADERS_WAIT, "TRANSPORT_SOCKET_CONNECT")
"""Timeouts for a request to begin, for its headers, and for the TLS handshake."""
_ONE_REQUEST = 0.6
"""Share of the heap from which a connection carries one request."""
_REFUSE = 0.95
"""Share of the heap from which no more connections are accepted."""
_MONITORS = "envoy.extensions.resource_monitors"
_HEAP = "envoy.resource_monitors.fixed_heap"
_RELEASED_PER_SECOND = 64 * MIB


def capacity_of(proxy: Proxy) -> Capacity:
    """Return how much *proxy* takes on: anybody can connect to an edge."""
    return INNER if proxy.edge is None else EDGE


def manager(capacity: Capacity) -> dict[str, Any]:
    """
    Return the overload manager.

    Memory triggers everything: for the number of connections, which has a limit of its own, Envoy
    reports no pressure.

    Source:
        Envoy, overload manager, "Resource monitors", "Reducing timeouts" and "Load shed points".
    """
    connections = {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": typed(
            f"{_MONITORS}.downstream_connections.v3.DownstreamConnectionsConfig",
            max_active_downstream_connections=capacity.connections,
        ),
    }
    return _by_memory(capacity.heap_bytes, _WAITS, connections)


def istio_bootstrap(capacity: Capacity) -> dict[str, Any]:
    """
    Return what Istio's agent merges into the bootstrap of a proxy.

    That has a limit of connections already. Istio's routes have no timeout of their own for streams
    that do not move, so that this one stays: it also applies to calls that wait for a response.
    """
    waits = [one for one in _WAITS if one != _HEADERS_WAIT]
    return {
        "overload_manager": _by_memory(capacity.heap_bytes + ISTIO_BYTES, waits),
        "memory_allocator_manager": memory_release(),
    }


def _by_memory(heap_bytes: int, waits: Iterable[str], *further: dict[str, Any]) -> dict[str, Any]:
    heap = {
        "name": _HEAP,
        "typed_config": typed(
            f"{_MONITORS}.fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=heap_bytes
        ),
    }
    shorter = typed(
        "envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
        timer_scale_factors=[{"timer": one, "min_timeout": _UNDER_PRESSURE} for one in waits],
    )
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [*further, heap],
        "actions": [
            {
                "name": "envoy.overload_actions.reduce_timeouts",
                "triggers": _heap(
                    scaled={"scaling_threshold": _SHRINK, "saturation_threshold": _SHORTEST}
                ),
                "typed_config": shorter,
            },
            {
                "name": "envoy.overload_actions.disable_http_keepalive",
                "triggers": _heap(threshold={"value": _ONE_REQUEST}),
            },
        ],
        "loadshed_points": [
            {
                "name": "envoy.load_shed_points.tcp_listener_accept",
                "triggers": _heap(threshold={"value": _REFUSE}),
            }
        ],
    }


def _heap(**when: Any) -> list[dict[str, Any]]:
    return [{"name": _HEAP, **when}]


def memory_release() -> dict[str, Any]:
    """Return how fast memory that is free again goes back to the system."""
    return {"bytes_to_release": _RELEASED_PER_SECOND, "memory_release_interval": "1s"}
