"""What the proxies tell: spans to the collector, one JSON line per request."""

from mesh.render.deployment import Deployment
from mesh.render.istio.installation import ACCESS_LOG, TRACING
from mesh.render.manifest import Files, resource

TELEMETRY = "telemetry.istio.io/v1 Telemetry"
SAMPLING_PERCENT = 5.0


def add(files: Files, deployed: Deployment) -> None:
    """Add the telemetry of each namespace to *files*."""
    for namespace in deployed.namespaces:
        files.add(
            f"telemetry-{namespace}.yaml",
            f"Makes spans of {SAMPLING_PERCENT:g} % of the calls in {namespace} and one access log "
            "line of each.\nThe providers are those of ../istiod-values.yaml.",
            resource(
                TELEMETRY,
                "default",
                namespace,
                spec={
                    "tracing": [
                        {
                            "providers": [{"name": TRACING}],
                            "randomSamplingPercentage": SAMPLING_PERCENT,
                        }
                    ],
                    "accessLogging": [{"providers": [{"name": ACCESS_LOG}]}],
                },
            ),
        )
