"""The edge proxy for browsers, and its certificate."""

from mesh.render.deployment import EDGE, EDGE_NAMESPACE, Deployment
from mesh.render.environment import SITE
from mesh.render.envoy import overload
from mesh.render.istio.edge import CERTIFICATE
from mesh.render.kubernetes.workloads import (
    BOOTSTRAP,
    PROXY_BOOTSTRAP,
    PROXY_CONFIG,
    REPLICAS,
    proxy_config,
    restricted,
)
from mesh.render.manifest import Files, Resource, resource

HTTP, HTTPS = 8080, 8443
_MOST_CONNECTIONS = "ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS"


def add(files: Files, _: Deployment) -> None:
    """Add the edge to *files*."""
    labels = {"app": EDGE}
    files.add(
        f"service-account-{EDGE}.yaml",
        f"The identity spiffe://amarre.local/ns/{EDGE_NAMESPACE}/sa/{EDGE}, the only one that may "
        "call the gateway.",
        resource("v1 ServiceAccount", EDGE, EDGE_NAMESPACE, automountServiceAccountToken=False),
    )
    files.add(
        f"service-{EDGE}.yaml",
        "The public address of the site; client addresses are preserved for rate limits.",
        resource(
            "v1 Service",
            EDGE,
            EDGE_NAMESPACE,
            metadata={"labels": labels},
            spec={
                "type": "LoadBalancer",
                "externalTrafficPolicy": "Local",
                "selector": labels,
                "ports": [
                    {"name": "http", "port": 80, "targetPort": HTTP, "protocol": "TCP"},
                    {"name": "https", "port": 443, "targetPort": HTTPS, "protocol": "TCP"},
                ],
            },
        ),
    )
    files.add(
        f"deployment-{EDGE}.yaml",
        "Istio's gateway proxy; injection sets image and command.",
        _deployment(labels),
    )
    files.add(
        f"pod-disruption-budget-{EDGE}.yaml",
        "Permits draining nodes one replica of the edge at a time.",
        resource(
            "policy/v1 PodDisruptionBudget",
            EDGE,
            EDGE_NAMESPACE,
            spec={"maxUnavailable": 1, "selector": {"matchLabels": labels}},
        ),
    )
    _role(files)
    _certificate(files)


def edge_proxy_config(environment: str = "production") -> str:
    """Return the configuration of the edge, which trusts no proxy in front of it."""
    topology = {"numTrustedProxies": 0, "forwardClientCertDetails": "SANITIZE"}
    # Istio sets no limit; each connection takes up to 45 KiB.
    most = {_MOST_CONNECTIONS: str(overload.EDGE.connections)}
    return proxy_config(environment, most, gatewayTopology=topology)


def _deployment(labels: dict[str, str]) -> Resource:
    annotations = {
        "inject.istio.io/templates": "gateway",
        PROXY_CONFIG: edge_proxy_config(),
        BOOTSTRAP: PROXY_BOOTSTRAP,
    }
    memory = overload.EDGE.memory_bytes + overload.ISTIO_BYTES
    container = {
        "name": "istio-proxy",
        "image": "auto",
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"memory": f"{memory // overload.MIB}Mi"},
        },
        "securityContext": restricted(),
        "ports": [
            {"name": "http", "containerPort": HTTP, "protocol": "TCP"},
            {"name": "https", "containerPort": HTTPS, "protocol": "TCP"},
        ],
    }
    return resource(
        "apps/v1 Deployment",
        EDGE,
        EDGE_NAMESPACE,
        metadata={"labels": labels},
        spec={
            "replicas": REPLICAS,
            "selector": {"matchLabels": labels},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": {
                "metadata": {
                    "labels": {**labels, "sidecar.istio.io/inject": "true"},
                    "annotations": annotations,
                },
                "spec": {
                    "serviceAccountName": EDGE,
                    "terminationGracePeriodSeconds": 60,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "topologySpreadConstraints": [
                        {
                            "maxSkew": 1,
                            "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": labels},
                        }
                    ],
                    "containers": [container],
                },
            },
        },
    )


def _role(files: Files) -> None:
    files.add(
        f"role-{EDGE}.yaml",
        "Lets istiod hand the edge its certificate. istiod checks whether the account may list "
        "secrets,\nwithout a name, which no rule with resourceNames allows; the namespace holds no "
        "other secret.",
        resource(
            "rbac.authorization.k8s.io/v1 Role",
            EDGE,
            EDGE_NAMESPACE,
            rules=[
                {
                    "apiGroups": [""],
                    "resources": ["secrets"],
                    "verbs": ["get", "watch", "list"],
                }
            ],
        ),
    )
    files.add(
        f"role-binding-{EDGE}.yaml",
        "Binds the edge to its role.",
        resource(
            "rbac.authorization.k8s.io/v1 RoleBinding",
            EDGE,
            EDGE_NAMESPACE,
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": EDGE},
            subjects=[{"kind": "ServiceAccount", "name": EDGE, "namespace": EDGE_NAMESPACE}],
        ),
    )


def _certificate(files: Files) -> None:
    files.add(
        f"certificate-{EDGE}.yaml",
        "The certificate that browsers see, kept fresh by cert-manager.",
        certificate(EDGE_NAMESPACE),
    )
    # Universities run their own DNS, and the challenge does not involve the edge.
    dns = {
        "nameserver": "ns1.example.org:53",
        "tsigKeyName": "amarre",
        "tsigAlgorithm": "HMACSHA512",
        "tsigSecretSecretRef": {"name": "amarre-acme-dns", "key": "tsig-key"},
    }
    files.add(
        "cluster-issuer-amarre.yaml",
        "The ACME authority; universities can use that of their national network, such as GEANT "
        "TCS.",
        resource(
            "cert-manager.io/v1 ClusterIssuer",
            "amarre",
            spec={
                "acme": {
                    "server": "https://acme.example.org/directory",
                    "email": "operators@example.org",
                    "privateKeySecretRef": {"name": "amarre-acme-account"},
                    "solvers": [{"dns01": {"rfc2136": dns}}],
                }
            },
        ),
    )


def certificate(namespace: str) -> Resource:
    """Return the public certificate, with its secret in *namespace*."""
    return resource(
        "cert-manager.io/v1 Certificate",
        CERTIFICATE,
        namespace,
        spec={
            "secretName": CERTIFICATE,
            "dnsNames": [SITE],
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "issuerRef": {"kind": "ClusterIssuer", "name": "amarre", "group": "cert-manager.io"},
        },
    )
