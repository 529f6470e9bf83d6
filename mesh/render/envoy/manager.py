"""Common parts of HTTP connection managers, and shared filters."""

from collections.abc import Sequence
from typing import Any

from mesh.render.envoy.proxy import Proxy, address, typed

_MUTATION = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
BUFFER_BYTES = 1_048_576
"""Limit per connection and direction."""
_STRICT_HTTP2 = {
    "max_concurrent_streams": 1000,
    "initial_stream_window_size": 1_048_576,
    "initial_connection_window_size": 4_194_304,
}


def manager(name: str, /, **fields: Any) -> dict[str, Any]:
    """Return the network filter of a connection manager named *name*."""
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": typed(
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            stat_prefix=name,
            server_header_transformation="PASS_THROUGH",
            normalize_path=True,
            path_with_escaped_slashes_action="REJECT_REQUEST",
            **fields,
        ),
    }


def listener(
    name: str,
    where: str,
    chain_filter: dict[str, Any],
    transport: dict[str, Any] | None = None,
    *,
    for_strangers: bool = True,
) -> dict[str, Any]:
    """
    Return a listener on *where*; only the current user can connect to a Unix socket.

    Connections of strangers count against the limits of the proxy; the others, from its own process
    and Prometheus, are always accepted, so that strangers cannot use up theirs.
    """
    place = address(where)
    if "pipe" in place:
        place["pipe"]["mode"] = 0o600
    chain: dict[str, Any] = {"filters": [chain_filter]}
    if transport is not None:
        chain |= {"transport_socket": transport, "transport_socket_connect_timeout": "5s"}
    limits: dict[str, Any] = {"ignore_global_conn_limit": True, "bypass_overload_manager": True}
    if for_strangers:
        # Otherwise one burst would be accepted before the overload manager sees its first part.
        limits = {"max_connections_to_accept_per_socket_event": 100}
    return {
        "name": name,
        "address": place,
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        **limits,
        "filter_chains": [chain],
    }


def grpc_options() -> dict[str, Any]:
    """Return the HTTP/2 options between processes of the mesh."""
    return {"codec_type": "HTTP2", "http2_protocol_options": _STRICT_HTTP2}


def forget(
    *, exact: Sequence[str] = (), prefixes: Sequence[str] = (), every: bool = True
) -> dict[str, Any]:
    """
    Return the mutation that removes request headers before any other filter runs.

    ``x-envoy-`` headers control a proxy's retries and timeouts; here only the contract does.
    With *every* all of them are removed, else only those with *prefixes*.
    """
    removed: list[dict[str, Any]] = [{"remove": name} for name in exact]
    removed += [
        {"remove_on_match": {"key_matcher": {"prefix": prefix}}}
        for prefix in (*(("x-envoy-",) if every else ()), *prefixes)
    ]
    return {
        "early_header_mutation_extensions": [
            {
                "name": "envoy.http.early_header_mutation.header_mutation",
                "typed_config": typed(_MUTATION, mutations=removed),
            }
        ]
    }


def routes_from_file(proxy: Proxy, name: str) -> dict[str, Any]:
    """Return the source of the routes named *name*: a watched file."""
    folder = f"{proxy.folder}/routes"
    return {
        "rds": {
            "route_config_name": name,
            "config_source": {
                "path_config_source": {
                    "path": f"{folder}/{name}.yaml",
                    "watched_directory": {"path": folder},
                },
                "resource_api_version": "V3",
            },
        }
    }


def fault_filter() -> dict[str, Any]:
    """Return the filter that injects the faults configured on a route."""
    return {
        "name": "envoy.filters.http.fault",
        "typed_config": typed("envoy.extensions.filters.http.fault.v3.HTTPFault"),
    }


def router() -> dict[str, Any]:
    """Return the router filter, the last in the chain."""
    return {
        "name": "envoy.filters.http.router",
        "typed_config": typed(
            "envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True
        ),
    }
