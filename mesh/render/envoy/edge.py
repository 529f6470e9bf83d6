"""
Edge listeners for browsers: HTTP and HTTPS, strict limits, JSON errors, rate limits.
"""

from datetime import timedelta
from typing import Any

from mesh.contract.model import LONGEST_CALL
from mesh.contract.policy import Mesh
from mesh.contract.wire import (
    ALWAYS_SERVED,
    BODY_BYTES,
    CANARY_HEADER,
    HEALTH_PATH,
    LOG_OUT_PATHS,
    SESSION_COOKIE,
)
from mesh.render.envoy import manager, telemetry, tls
from mesh.render.envoy.clusters import APP, APP_STREAMS, at_gateway
from mesh.render.envoy.errors import LOG_OUT, json_replies
from mesh.render.envoy.proxy import EDGE, Edge, Proxy, seconds, typed

HEADERS_KIB = 16
PER_ADDRESS = (500, 250)
"""Rate limit of one address: burst, and requests per second."""
PER_SESSION = (100, 50)
"""Rate limit of one session, in addition to that of its address."""
_MOST_CLIENTS = 20_000
"""Maximum number of clients tracked; about 10 MiB."""
_HEADERS_IN, _REQUEST_IN, _IDLE = "10s", "15s", "60s"
"""Timeouts of headers, of the whole request, and of connections without one."""
START_HEADER = "x-amarre-start"
"""Header for the gateway: when the first byte of a request arrived, in ms since 1970."""
START = "%START_TIME(%s%3f)%"
FORGED = (
    "authorization",
    "proxy-authorization",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-real-ip",
    "forwarded",
    "x-request-id",
    "x-original-url",
    "x-rewrite-url",
    CANARY_HEADER,
    "traceparent",
    "tracestate",
    "x-client-trace-id",
    "baggage",
    "b3",
    "grpc-timeout",
)
_NOBODY_IS_INTERNAL = {
    "unix_sockets": False,
    # An empty list would mean Envoy's default private networks.
    "cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}],
}
_ORDINARY, _LOG_OUT = "ordinary", "log-out"
_LIMIT = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"


def listeners(proxy: Proxy, edge: Edge, mesh: Mesh) -> list[dict[str, Any]]:
    """Return the HTTP listener, and the HTTPS listener if the edge has one."""
    found = [
        manager.listener("edge_http", edge.http, _manager("edge_http", proxy, edge, mesh, None))
    ]
    if edge.https:
        hcm = _manager("edge_https", proxy, edge, mesh, edge.hsts)
        found.append(manager.listener("edge_https", edge.https, hcm, tls.from_browsers(proxy)))
    return found


def _manager(
    name: str, proxy: Proxy, edge: Edge, mesh: Mesh, hsts: timedelta | None
) -> dict[str, Any]:
    return manager.manager(
        name,
        codec_type="AUTO",
        **from_clients(),
        # Until the route is known; shrinks while memory runs short.
        stream_idle_timeout=_HEADERS_IN,
        # The peer is the client; forwarded addresses are not trusted.
        use_remote_address=True,
        xff_num_trusted_hops=0,
        internal_address_config=_NOBODY_IS_INTERNAL,
        forward_client_cert_details="SANITIZE",
        generate_request_id=True,
        always_set_request_id_in_response=True,
        merge_slashes=True,
        drain_timeout="2s",
        local_reply_config=json_replies(hsts=hsts),
        access_log=telemetry.access_log(proxy, EDGE),
        **telemetry.tracing(proxy, EDGE),
        route_config={
            "name": name,
            "virtual_hosts": [
                {
                    "name": "app",
                    "domains": ["*"],
                    "routes": _to_https() if edge.redirect and hsts is None else _routes(mesh),
                    **(
                        {"typed_per_filter_config": telemetry.of_routed()}
                        if proxy.telemetry.traces
                        else {}
                    ),
                }
            ],
            "request_headers_to_add": [
                {
                    "header": {"key": START_HEADER, "value": START},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }
            ],
        },
        http_filters=[
            *([telemetry.trace_response()] if proxy.telemetry.traces else []),
            *(client_limits() if edge.rate_limits else []),
            body_limit(),
            manager.router(),
        ],
    )


def from_clients() -> dict[str, Any]:
    """Return how a connection manager reads clients: what it ignores, and limits of requests."""
    return {
        **manager.forget(exact=FORGED, prefixes=["x-amarre-", "x-b3-"]),
        "max_request_headers_kb": HEADERS_KIB,
        "common_http_protocol_options": {
            "max_headers_count": 100,
            "headers_with_underscores_action": "REJECT_REQUEST",
            "idle_timeout": _IDLE,
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65_536,
            "initial_connection_window_size": 1_048_576,
        },
        "request_headers_timeout": _HEADERS_IN,
        "request_timeout": _REQUEST_IN,
        "delayed_close_timeout": "1s",
    }


def _routes(mesh: Mesh) -> list[dict[str, Any]]:
    """Return one route per path of the contracts, and one for all other paths.

    Logs and spans show route names, because other paths are chosen by clients.
    """
    longest = LONGEST_CALL + timedelta(seconds=5)
    found = {path: _route(path, {"path": path}, longest, priority="HIGH") for path in ALWAYS_SERVED}
    for path in LOG_OUT_PATHS:
        found[path]["typed_per_filter_config"] = any_body()
    for method in mesh:
        for path in (route.path for route in method.routes):
            if method.stays_open:
                # A stream stays open until one side ends it.
                found[path] = _route(path, {"path": path}, timedelta(), cluster=APP_STREAMS)
            elif path not in ALWAYS_SERVED:
                to = at_gateway(method.service)
                found[path] = _route(path, {"path": path}, longest, cluster=to)
    return [*found.values(), _route("other", {"prefix": "/"}, longest)]


def _to_https() -> list[dict[str, Any]]:
    """Return the routes of an HTTP listener that redirects all but health checks to HTTPS."""
    redirect = {"https_redirect": True, "response_code": "PERMANENT_REDIRECT"}
    return [
        _route(HEALTH_PATH, {"path": HEALTH_PATH}, LONGEST_CALL),
        {"name": "to_https", "match": {"prefix": "/"}, "redirect": redirect},
    ]


def _route(
    name: str, match: dict[str, str], timeout: timedelta, *, cluster: str = APP, **target: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "match": match,
        # A stream may be silent; "timeout" limits all other requests.
        "route": {"cluster": cluster, "timeout": seconds(timeout), "idle_timeout": "0s", **target},
    }


def body_limit() -> dict[str, Any]:
    """Return the filter that limits the body of a request."""
    return {
        "name": "envoy.filters.http.buffer",
        "typed_config": typed(
            "envoy.extensions.filters.http.buffer.v3.Buffer", max_request_bytes=BODY_BYTES
        ),
    }


def any_body() -> dict[str, Any]:
    """Return the filters' configuration for log-out, which succeeds whatever its body is.

    The gateway reads at most the limit of it.
    """
    per_route = typed("envoy.extensions.filters.http.buffer.v3.BufferPerRoute", disabled=True)
    return {"envoy.filters.http.buffer": per_route}


def client_limits() -> list[dict[str, Any]]:
    """Return the filters that limit requests per address and per session."""
    cookie = {
        "cookie": SESSION_COOKIE,
        "on_header_present": {
            "metadata_namespace": "amarre",
            "key": "session",
            "type": "STRING",
        },
    }
    return [
        {
            "name": "envoy.filters.http.header_to_metadata",
            "typed_config": typed(
                "envoy.extensions.filters.http.header_to_metadata.v3.Config",
                request_rules=[cookie],
            ),
        },
        {
            "name": "envoy.filters.http.local_ratelimit",
            "typed_config": _rate_limit(),
        },
    ]


def _rate_limit() -> dict[str, Any]:
    """Return the rate limit; log-out has a bucket of its own, so that other requests cannot use it
    up.
    """
    everything = {"default_value": {"numerator": 100}}
    address = {"masked_remote_address": {"v4_prefix_mask_len": 32, "v6_prefix_mask_len": 64}}
    session = {
        "metadata": {
            "descriptor_key": "session",
            "source": "DYNAMIC",
            "metadata_key": {"key": "amarre", "path": [{"key": "session"}]},
        }
    }
    return typed(
        _LIMIT,
        stat_prefix="edge",
        # The overall bucket is unlimited; the buckets per client below limit.
        token_bucket=_bucket(1_000_000, 1_000_000),
        filter_enabled=everything,
        filter_enforced=everything,
        max_dynamic_descriptors=_MOST_CLIENTS,
        rate_limits=[
            {"actions": [_log_out(_ORDINARY, expected=False), address]},
            {"actions": [_log_out(_ORDINARY, expected=False), session]},
            {"actions": [_log_out(_LOG_OUT, expected=True), address]},
        ],
        descriptors=[
            _limited(_ORDINARY, "masked_remote_address", PER_ADDRESS),
            _limited(_ORDINARY, "session", PER_SESSION),
            _limited(_LOG_OUT, "masked_remote_address", PER_SESSION),
        ],
    )


def _log_out(value: str, *, expected: bool) -> dict[str, Any]:
    """Return the action with *value* for requests that are log-outs, or for all others."""
    return {
        "header_value_match": {
            "descriptor_key": "kind",
            "descriptor_value": value,
            "expect_match": expected,
            "headers": [LOG_OUT],
        }
    }


def _limited(kind: str, key: str, limit: tuple[int, int]) -> dict[str, Any]:
    entries = [{"key": "kind", "value": kind}, {"key": key}]
    return {"entries": entries, "token_bucket": _bucket(*limit)}


def _bucket(most: int, per_second: int) -> dict[str, Any]:
    return {"max_tokens": most, "tokens_per_fill": per_second, "fill_interval": "1s"}
