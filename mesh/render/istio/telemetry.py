"""Telemetry of the proxies: spans to the collector, and access logs as JSON lines."""

from typing import Any

from mesh.render.deployment import EDGE, EDGE_NAMESPACE, HEALTH_SERVICE, Deployment
from mesh.render.istio.installation import ACCESS_LOG, EDGE_LOG, TRACING
from mesh.render.manifest import Files, resource

TELEMETRY = "telemetry.istio.io/v1 Telemetry"
SAMPLING_PERCENT = 5.0


def add(files: Files, deployed: Deployment) -> None:
    """Add the telemetry of each namespace, and of the browser-facing workloads, to *files*."""
    for namespace in deployed.namespaces:
        spans = {
            "providers": [{"name": TRACING}],
            "randomSamplingPercentage": SAMPLING_PERCENT,
        }
        files.add(
            f"telemetry-{namespace}.yaml",
            f"Traces {SAMPLING_PERCENT:g} % of the calls in {namespace}, and logs each call.\n"
            "The providers are defined in ../istiod-values.yaml.",
            resource(
                TELEMETRY,
                "default",
                namespace,
                spec={"tracing": [spans], "accessLogging": _both_sides(ACCESS_LOG)},
            ),
        )
    _without_paths(files, EDGE, EDGE_NAMESPACE, [_lines(EDGE_LOG)])
    for workload in deployed.workloads:
        if not workload.is_grpc:
            _without_paths(files, workload.name, workload.namespace, _both_sides(EDGE_LOG))


def _without_paths(files: Files, name: str, namespace: str, lines: list[dict[str, Any]]) -> None:
    files.add(
        f"telemetry-{name}.yaml",
        f"Keeps paths that clients choose out of the access log of {name}.",
        resource(
            TELEMETRY,
            name,
            namespace,
            spec={"selector": {"matchLabels": {"app": name}}, "accessLogging": lines},
        ),
    )


def _both_sides(server: str) -> list[dict[str, Any]]:
    """
    Return the access logs of a workload: all calls it receives, to the provider *server*, and
    those it sends that fail or are slow, as in `mesh.render.envoy.telemetry`.
    """
    unusual = (
        "response.code >= 400 || (has(response.grpc_status) && response.grpc_status != 0)"
        " || request.duration >= duration('1s')"
    )
    sent = f"!has(request.url_path) || ({_NO_HEALTH_CHECK} && ({unusual}))"
    return [_lines(server, "SERVER", _NO_HEALTH_CHECK), _lines(ACCESS_LOG, "CLIENT", sent)]


_NO_HEALTH_CHECK = f"!request.url_path.startsWith('{HEALTH_SERVICE}')"


def _lines(provider: str, side: str = "", expression: str = "") -> dict[str, Any]:
    lines: dict[str, Any] = {"match": {"mode": side}} if side else {}
    lines["providers"] = [{"name": provider}]
    if expression:
        lines["filter"] = {"expression": expression}
    return lines
