"""Telemetry of an Envoy: spans by OTLP, one JSON log line per request, statistics per method."""

from collections.abc import Iterable
from importlib import metadata
from typing import Any

from google.rpc import code_pb2

from mesh.chassis.telemetry import names
from mesh.render.deployment import HEALTH_SERVICE
from mesh.render.envoy.proxy import EDGE, EGRESS, INBOUND, OTLP, Collector, Proxy, typed

_DETECTORS = "envoy.tracers.opentelemetry.resource_detectors"
_REFUSALS = ("PERMISSION_DENIED", "UNAUTHENTICATED")
_SLOW_MS = 1000
_LEVELS = {
    names.KIND_ACCESS: "info",
    names.KIND_SECURITY: "warning",
    names.KIND_ERROR: "error",
}


def tracing(proxy: Proxy, direction: str) -> dict[str, Any]:
    """Return the ``tracing`` of a connection manager; empty without a collector."""
    collector = proxy.telemetry.traces
    if collector is None:
        return {}
    paths = (names.HTTP_ROUTE, names.URL_TEMPLATE) if direction == EDGE else ("url.path",)
    caller = {"tag": names.CALLER_ID, "value": "%DOWNSTREAM_PEER_URI_SAN%"}
    return {
        "tracing": {
            "random_sampling": {"value": proxy.telemetry.sampling_percent},
            # Otherwise the header x-client-trace-id would force a trace.
            "client_sampling": {"value": 0},
            "spawn_upstream_span": direction == EGRESS,
            **({"operation": "%REQ(:METHOD)% %ROUTE_NAME%"} if direction == EDGE else {}),
            # Envoy's own tag would include the query.
            "max_path_tag_length": 1 if direction == EDGE else 256,
            "custom_tags": [
                {"tag": "envoy.details", "value": "%RESPONSE_CODE_DETAILS%"},
                *({"tag": path, "value": _path(direction)} for path in paths),
                *([caller] if direction == INBOUND else []),
            ],
            "provider": {
                "name": "envoy.tracers.opentelemetry",
                "typed_config": typed(
                    "envoy.config.trace.v3.OpenTelemetryConfig",
                    service_name=proxy.name,
                    grpc_service=_service(OTLP, collector),
                    resource_detectors=[
                        {
                            "name": f"{_DETECTORS}.static_config",
                            "typed_config": typed(
                                "envoy.extensions.tracers.opentelemetry.resource_detectors.v3."
                                "StaticConfigResourceDetectorConfig",
                                attributes=_resource(proxy),
                            ),
                        }
                    ],
                ),
            },
        }
    }


def _resource(proxy: Proxy) -> dict[str, str]:
    """Return what identifies a proxy besides its name, like the resource of a process."""
    return {
        "service.namespace": "amarre",
        "service.instance.id": proxy.name,
        "service.version": metadata.version("amarre-mesh"),
        "deployment.environment.name": proxy.telemetry.environment,
    }


def batches(proxy: Proxy) -> dict[str, Any]:
    """
    Return the runtime settings of how many spans are sent at once; empty without a collector.

    By default every fifth span is sent with those before it, and a request of the collector's costs
    as much as twenty spans.
    """
    if proxy.telemetry.traces is None:
        return {}
    settings = {
        "tracing.opentelemetry.min_flush_spans": 256,
        "tracing.opentelemetry.flush_interval_ms": 1000,
    }
    return {"layered_runtime": {"layers": [{"name": "telemetry", "static_layer": settings}]}}


def _path(direction: str) -> str:
    """
    Return the format of paths in telemetry: without the query, which may contain a secret; at the
    edge, where clients choose the path, the name of its route.
    """
    return "%ROUTE_NAME%" if direction == EDGE else "%PATH(NQ)%"


UNTRACED = {
    "client_sampling": {"numerator": 0},
    "random_sampling": {"numerator": 0},
    "overall_sampling": {"numerator": 0},
}
"""The tracing of routes that are never sampled, such as health checks."""


def access_log(proxy: Proxy, direction: str) -> list[dict[str, Any]]:
    """
    Return the access logs of a connection manager: lines to stdout, and denied calls also to the
    collector.

    Ordinary requests have a separate log, which does not evaluate the kind of the line.
    """
    ordinary, unusual = _ordinary(direction), _unusual(direction)
    if direction == EGRESS:
        # The proxy of the called service logs every call.
        ordinary = _all_of(ordinary, _is_slow())
    logs = [
        _to_stdout(ordinary, _fields(proxy, direction, names.KIND_ACCESS)),
        _to_stdout(unusual, _fields(proxy, direction, line_kind()) | {"level": line_level()}),
    ]
    if proxy.telemetry.logs is not None:
        logs.append(_refusals(proxy, proxy.telemetry.logs, direction))
    return logs


def _to_stdout(which: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
    return {
        "name": "envoy.access_loggers.stdout",
        "filter": _all_of(_no_health_checks(), which),
        "typed_config": typed(
            "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            log_format={"json_format": fields},
        ),
    }


def _fields(proxy: Proxy, direction: str, kind: str) -> dict[str, str]:
    fields = {
        "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
        "level": "info",
        "event": "request",
        "kind": kind,
        "service": proxy.name,
        "direction": direction,
        "method": "%REQ(:METHOD)%",
        "path": _path(direction),
        "code": "%RESPONSE_CODE%",
        "grpc_status": "%GRPC_STATUS%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "duration_ms": "%DURATION%",
        "trace_id": "%TRACE_ID%",
        "request_id": "%REQ(X-REQUEST-ID)%",
    }
    if direction == INBOUND:
        fields |= {
            "caller": "%DOWNSTREAM_PEER_URI_SAN%",
            "serial": "%DOWNSTREAM_PEER_SERIAL%",
        }
    if direction == EGRESS:
        fields |= {
            "cluster": "%UPSTREAM_CLUSTER%",
            "upstream": "%UPSTREAM_HOST%",
            "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        }
    return fields


def line_kind() -> str:
    """
    Return the expression for the kind of a log line, as in `mesh.chassis.telemetry.kind_of`.

    Slow calls are logged by processes, which know each method's objective.
    """
    return _choice(_kinds(), names.KIND_ACCESS)


def line_level() -> str:
    """Return the expression for the level of a log line, which follows from its kind."""
    return _choice([(condition, _LEVELS[kind]) for condition, kind in _kinds()], "info")


def _kinds() -> tuple[tuple[str, str], ...]:
    """Return kinds with their conditions; the first that is met applies."""
    name = "'content-type'"
    is_grpc = f"{name} in request.headers && request.headers[{name}].startsWith('application/grpc')"
    return (
        # Nearly all calls match this. A call without a status was cancelled by its client.
        ("!has(response.grpc_status) || response.grpc_status == 0", names.KIND_ACCESS),
        ("response.code in [401, 403, 429]", names.KIND_SECURITY),
        ("response.code >= 500", names.KIND_ERROR),
        # Envoy derives a missing status from the HTTP code: UNKNOWN from 200.
        (f"!({is_grpc})", names.KIND_ACCESS),
        (f"response.grpc_status in {_numbers(names.SECURITY_CODES)}", names.KIND_SECURITY),
        (f"response.grpc_status in {_numbers(names.FAULT_CODES)}", names.KIND_ERROR),
    )


def _choice(cases: Iterable[tuple[str, str]], otherwise: str) -> str:
    asked = "".join(f"{condition} ? '{result}' : " for condition, result in cases)
    return f"%CEL({asked}'{otherwise}')%"


def _numbers(codes: Iterable[str]) -> list[int]:
    return sorted(map(code_pb2.Code.Value, codes))


def _ordinary(direction: str) -> dict[str, Any]:
    """Return the filter of requests that succeeded or were cancelled by the client."""
    if direction == EDGE:
        return _status("LE", 399)
    return {"grpc_status_filter": {"statuses": ["OK"]}}


def _unusual(direction: str) -> dict[str, Any]:
    if direction == EDGE:
        return _all_of(_status("GE", 400), _some_overflow())
    return {"grpc_status_filter": {"statuses": ["OK"], "exclude": True}}


def _status(comparison: str, code: int) -> dict[str, Any]:
    value = {"default_value": code, "runtime_key": f"access_log.status_{comparison.lower()}"}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": value}}}


def _some_overflow() -> dict[str, Any]:
    """
    Return the filter that passes one in a hundred of the requests above the gateway's limit.

    Logging all of them would cost more than rejecting them; ``upstream_rq_pending_overflow``
    counts them.
    """
    some = {
        "runtime_key": "access_log.overflow",
        "percent_sampled": {"numerator": 1},
        "use_independent_randomness": True,
    }
    other = {
        "name": "envoy.access_loggers.extension_filters.cel",
        "typed_config": typed(
            "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
            expression="!response.code_details.contains('overflow')",
        ),
    }
    return {"or_filter": {"filters": [{"runtime_filter": some}, {"extension_filter": other}]}}


def _is_slow() -> dict[str, Any]:
    slow = {"default_value": _SLOW_MS, "runtime_key": "access_log.slow_ms"}
    return {"duration_filter": {"comparison": {"op": "GE", "value": slow}}}


def _all_of(*filters: dict[str, Any]) -> dict[str, Any]:
    """Return the conjunction of *filters*, with nested conjunctions merged."""
    flat = [
        one for given in filters for one in given.get("and_filter", {"filters": [given]})["filters"]
    ]
    return {"and_filter": {"filters": flat}}


def _no_health_checks() -> dict[str, Any]:
    return {
        "header_filter": {
            "header": {
                "name": ":path",
                "string_match": {"prefix": HEALTH_SERVICE},
                "invert_match": True,
            }
        }
    }


def _refusals(proxy: Proxy, collector: Collector, direction: str) -> dict[str, Any]:
    """Return the log of denied calls; the details name the policy and its line in the contract."""
    attributes = {
        "event.name": "refusal",
        "kind": names.KIND_SECURITY,
        "proxy": proxy.name,
        "direction": direction,
        "path": _path(direction),
        "caller": "%DOWNSTREAM_PEER_URI_SAN%",
        "grpc_status": "%GRPC_STATUS%",
    }
    # Clients of the edge call it over HTTP.
    status = "HTTP %RESPONSE_CODE%" if direction == EDGE else "%GRPC_STATUS%"
    return {
        "name": "envoy.access_loggers.open_telemetry",
        "filter": {"grpc_status_filter": {"statuses": list(_REFUSALS)}},
        "typed_config": typed(
            "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
            log_name=direction,
            grpc_service=_service(proxy.telemetry.cluster_of_logs, collector),
            buffer_flush_interval="1s",
            body={"string_value": f"denied: {status}, %RESPONSE_CODE_DETAILS%"},
            attributes={
                "values": [
                    {"key": key, "value": {"string_value": value}}
                    for key, value in attributes.items()
                ]
            },
            resource_attributes={
                "values": [
                    {"key": key, "value": {"string_value": value}}
                    for key, value in {"service.name": proxy.name, **_resource(proxy)}.items()
                ]
            },
        ),
    }


def _service(cluster: str, collector: Collector) -> dict[str, Any]:
    service: dict[str, Any] = {"envoy_grpc": {"cluster_name": cluster}, "timeout": "1s"}
    if collector.headers:
        service["initial_metadata"] = [
            {"key": name, "value": value} for name, value in collector.headers
        ]
    return service


def method_statistics() -> dict[str, Any]:
    """Return the filter that counts results by method: gRPC failures have HTTP status 200."""
    return {
        "name": "envoy.filters.http.grpc_stats",
        "typed_config": typed(
            "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
            stats_for_all_methods=True,
            enable_upstream_stats=True,
        ),
    }


_TRACE_RESPONSE = "envoy.filters.http.header_mutation"
_MUTATION = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"


def trace_response() -> dict[str, Any]:
    """Return the filter that adds the trace id to responses; `of_routed` says to which."""
    return {"name": _TRACE_RESPONSE, "typed_config": typed(_MUTATION, mutations={})}


def of_routed() -> dict[str, Any]:
    """
    Return the configuration of routes that adds the trace id to responses without one.

    Those to requests that have no route have no trace.

    Source:
        W3C Trace Context, Level 2 draft, ``traceresponse``.
    """
    header = {"key": "traceresponse", "value": "00-%TRACE_ID%-%SPAN_ID%-01"}
    added = {"append": {"header": header, "append_action": "ADD_IF_ABSENT"}}
    mutations = {"response_mutations": [added]}
    return {_TRACE_RESPONSE: typed(f"{_MUTATION}PerRoute", mutations=mutations)}
