"""The values of istiod's Helm chart."""

from mesh import topology
from mesh.render.deployment import CLUSTER_DOMAIN, MONITORING
from mesh.render.envoy.telemetry import line_kind, line_level
from mesh.render.manifest import Resource, text

TRACING = "amarre-traces"
ACCESS_LOG, EDGE_LOG = "amarre-access-log", "amarre-edge-log"
COLLECTOR_PORT = 4317


def files() -> dict[str, str]:
    """Return the values file."""
    return {
        "istiod-values.yaml": text(
            "Settings of the whole mesh that have no resource: values of Istio's chart istiod.\n"
            "helm install istiod istio/istiod -n istio-system -f istiod-values.yaml",
            {
                "pilot": {
                    "env": {
                        # The proxies fetch the key set through the mesh; istiod is not part of it.
                        "PILOT_JWT_ENABLE_REMOTE_JWKS": "envoy",
                        "ENABLE_NATIVE_SIDECARS": "true",
                    }
                },
                "meshConfig": _mesh_config(),
            },
        )
    }


def _mesh_config() -> Resource:
    return {
        "trustDomain": topology.TRUST_DOMAIN,
        "meshMTLS": {"minProtocolVersion": "TLSV1_3"},
        "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
        "enableAutoMtls": True,
        "enablePrometheusMerge": True,
        "pathNormalization": {"normalization": "MERGE_SLASHES"},
        "defaultConfig": {
            "holdApplicationUntilProxyStarts": True,
            "terminationDrainDuration": "15s",
            "concurrency": 1,
            # Statistics that alerts and dashboards use, in addition to Istio's defaults.
            "proxyStatsMatcher": {
                "inclusionRegexps": [
                    ".*circuit_breakers.*",
                    ".*outlier_detection.*",
                    "cluster.*upstream_(rq_retry|rq_(active|pending)_overflow|rq_total|cx_active)",
                    "cluster.*membership_(healthy|total)",
                    "http.*rbac.*denied",
                    "listener.*downstream_(global_cx_overflow|cx_overload_reject)",
                    ".*http_local_rate_limit.rate_limited",
                ]
            },
            "proxyHeaders": {
                "forwardedClientCert": "SANITIZE_SET",
                "setCurrentClientCertDetails": {"uri": True, "subject": False, "dns": False},
                "server": {"disabled": True},
            },
        },
        "extensionProviders": [
            {
                "name": TRACING,
                "opentelemetry": {
                    "service": f"otel-collector.{MONITORING}.{CLUSTER_DOMAIN}",
                    "port": COLLECTOR_PORT,
                    # OTEL_RESOURCE_ATTRIBUTES of each pod.
                    "resourceDetectors": {"environment": {}},
                    # Envoy's own URL tag would include the query, which may contain a secret.
                    "maxTagLength": 1,
                },
            },
            # Within the mesh, a path is the name of a method.
            _log(ACCESS_LOG, path="%PATH(NQ)%", caller="%DOWNSTREAM_PEER_URI_SAN%"),
            # Paths from clients are omitted; the gateway logs the contract's route.
            _log(EDGE_LOG),
        ],
    }


def _log(name: str, **more: str) -> Resource:
    """Return a provider of access logs, one JSON object per line."""
    fields = {
        "time": "%START_TIME%",
        "level": line_level(),
        "kind": line_kind(),
        "trace_id": "%TRACE_ID%",
        "method": "%REQ(:METHOD)%",
        "status": "%RESPONSE_CODE%",
        "grpc_status": "%GRPC_STATUS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "duration_ms": "%DURATION%",
        "upstream": "%UPSTREAM_CLUSTER_RAW%",
        "route": "%ROUTE_NAME%",
        **more,
    }
    return {
        "name": name,
        "envoyFileAccessLog": {"path": "/dev/stdout", "logFormat": {"labels": fields}},
    }
