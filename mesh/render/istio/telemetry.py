"""What the proxies tell: spans to the collector, one JSON line per request."""

from typing import Any

from mesh.render.deployment import APP_NAMESPACE, EDGE, Deployment
from mesh.render.istio.installation import ACCESS_LOG, EDGE_LOG, TRACING
from mesh.render.manifest import Files, resource

TELEMETRY = "telemetry.istio.io/v1 Telemetry"
SAMPLING_PERCENT = 5.0


def add(files: Files, deployed: Deployment) -> None:
    """Add the telemetry of each namespace, and of the workloads that browsers meet, to *files*."""
    for namespace in deployed.namespaces:
        spans = {
            "providers": [{"name": TRACING}],
            "randomSamplingPercentage": SAMPLING_PERCENT,
        }
        files.add(
            f"telemetry-{namespace}.yaml",
            f"Makes spans of {SAMPLING_PERCENT:g} % of the calls in {namespace} and one access log "
            "line of each.\nThe providers are those of ../istiod-values.yaml.",
            resource(
                TELEMETRY,
                "default",
                namespace,
                spec={"tracing": [spans], "accessLogging": [_lines(ACCESS_LOG)]},
            ),
        )
    _without_paths(files, EDGE, [_lines(EDGE_LOG)])
    for workload in deployed.workloads:
        if not workload.is_grpc:
            sides = [_lines(EDGE_LOG, "SERVER"), _lines(ACCESS_LOG, "CLIENT")]
            _without_paths(files, workload.name, sides)


def _without_paths(files: Files, name: str, lines: list[dict[str, Any]]) -> None:
    files.add(
        f"telemetry-{name}.yaml",
        f"Keeps what people type into an address out of the lines of {name}.",
        resource(
            TELEMETRY,
            name,
            APP_NAMESPACE,
            spec={"selector": {"matchLabels": {"app": name}}, "accessLogging": lines},
        ),
    )


def _lines(provider: str, side: str = "") -> dict[str, Any]:
    chosen = {"match": {"mode": side}} if side else {}
    return {**chosen, "providers": [{"name": provider}]}
