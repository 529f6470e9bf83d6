"""Optional components of overlays: secrets, ingress, names of the site."""

from mesh.render.deployment import (
    APP_NAMESPACE,
    EDGE,
    EDGE_NAMESPACE,
    Deployment,
    External,
    Workload,
    principal,
)
from mesh.render.docker import version
from mesh.render.environment import SITE, secret_files
from mesh.render.envoy.edge import FORGED, PER_ADDRESS
from mesh.render.istio.edge import CERTIFICATE
from mesh.render.kubernetes.edge import certificate
from mesh.render.kubernetes.network import NETWORK_POLICY
from mesh.render.kubernetes.workloads import MIGRATION, PROXY_BOOTSTRAP
from mesh.render.manifest import Files, Resource, inline, kustomization, resource

EXTERNAL_SECRET = "external-secrets.io/v1 ExternalSecret"  # noqa: S105 - a kind
INGRESS = "networking.k8s.io/v1 Ingress"
STORE = "amarre"
SITE_VALUES = "site"
LONGEST_STREAM_SECONDS = 620


def every(deployed: Deployment) -> dict[str, Files]:
    """Return the components by name."""
    return {
        "site": _site(deployed),
        "external-secrets": _external_secrets(deployed),
        "ingress-nginx": _ingress_nginx(deployed),
        "ingress-traefik": _ingress_traefik(deployed),
    }


def site_values(deployed: Deployment, host: str = SITE) -> dict[str, str]:
    """Return the contents of a ``site.yaml``."""
    hosts = {f"{e.name}-host": e.host for e in deployed.externals}
    return {
        "version": version(),
        "host": host,
        "origin": f"https://{host}",
        "link-url": f"https://{host}/login",
        "email-domains": "example.org",
        "mail-from": f"AMARRE <no-reply@{host}>",
        **hosts,
        "mail-url": f"smtps://amarre@{hosts['mail-host']}:465",
        "redcap-url": f"https://{hosts['redcap-host']}/api/",
        "health-hosts": hosts["redcap-host"],
        "health-backends": f'{{"redcap": "https://{hosts["redcap-host"]}/"}}',
    }


def _site(deployed: Deployment) -> Files:
    settings: dict[str, list[Resource]] = {
        "version": _version(deployed),
        "host": [
            _target("Gateway", EDGE, "spec.servers.*.hosts.0"),
            _target("VirtualService", EDGE, "spec.hosts.0"),
            _target("Certificate", CERTIFICATE, "spec.dnsNames.0"),
            _optional("Ingress", "gateway", "spec.rules.0.host", "spec.tls.0.hosts.0"),
        ],
        "origin": [_setting("gateway", "AMARRE_GATEWAY_ORIGINS")],
        "link-url": [_setting("auth", "AMARRE_AUTH_LINK_URL")],
        "mail-from": [_setting("auth", "AMARRE_AUTH_MAIL_FROM")],
        "mail-url": [_setting("auth", "AMARRE_AUTH_SMTP_URL")],
        "redcap-url": [_setting("survey", "AMARRE_SURVEY_REDCAP_URL")],
        "health-hosts": [_setting("health", "AMARRE_HEALTH_ALLOWED_HOSTS")],
        "health-backends": [_setting("health", "AMARRE_HEALTH_BACKENDS")],
        "email-domains": [
            _setting(w.name, "AMARRE_ALLOWED_EMAIL_DOMAINS") for w in deployed.workloads
        ],
    }
    for external in deployed.externals:
        settings[f"{external.name}-host"] = _external(external)
    replacements = [
        {
            "source": {"kind": "ConfigMap", "name": SITE_VALUES, "fieldPath": f"data.{value}"},
            "targets": targets,
        }
        for value, targets in settings.items()
    ]
    files = Files()
    files.add(
        "kustomization.yaml",
        "Copies the values of the ConfigMap `site` to every resource that needs them. The overlay "
        "provides it, marked as local: it is not applied itself.",
        kustomization(component=True, replacements=replacements),
    )
    return files


def _version(deployed: Deployment) -> list[Resource]:
    """
    Return the tag of every image, and the name of the migration: a Job cannot be changed, so each
    version has its own.
    """
    image = "spec.template.spec.containers.0.image"
    tag: Resource = {"delimiter": ":", "index": 1}
    targets = [_target("Deployment", w.name, image, **tag) for w in deployed.workloads]
    job: Resource = {"select": {"kind": "Job"}}
    name: Resource = {"delimiter": "-", "index": MIGRATION.count("-") + 1}
    return [
        *targets,
        {**job, "fieldPaths": [image], "options": tag},
        {**job, "fieldPaths": ["metadata.name"], "options": name},
    ]


def _target(kind: str, name: str, *paths: str, **options: object) -> Resource:
    found: Resource = {"select": {"kind": kind, "name": name}, "fieldPaths": list(paths)}
    return found | ({"options": options} if options else {})


def _optional(kind: str, name: str, *paths: str) -> Resource:
    """A target that only some variants have; kustomize ignores missing targets."""
    return _target(kind, name, *paths)


def _setting(workload: str, variable: str) -> Resource:
    return _target("ConfigMap", workload, f"data.{variable}")


def _external(external: External) -> list[Resource]:
    found = [
        _target("ServiceEntry", external.name, "spec.hosts.0"),
        _target("DestinationRule", external.name, "spec.host"),
    ]
    for user in external.users:
        path = f"spec.egress.0.hosts.[=./{external.host}]"
        found.append(_target("Sidecar", user, path, delimiter="/", index=1))
    return found


def _external_secrets(deployed: Deployment) -> Files:
    files = Files()
    for workload in deployed.workloads:
        files.add(
            f"external-secret-{workload.name}.yaml",
            f"Fetches the secrets of {workload.name} from the site's vault.",
            _external_secret(workload),
        )
    files.add(
        "kustomization.yaml",
        f"Secrets from External Secrets Operator and the ClusterSecretStore {STORE}.",
        kustomization(component=True, resources=sorted(files)),
    )
    return files


def _external_secret(workload: Workload) -> Resource:
    key = f"amarre/{workload.name}"
    return resource(
        EXTERNAL_SECRET,
        workload.name,
        workload.namespace,
        spec={
            "refreshInterval": "1h",
            "secretStoreRef": {"kind": "ClusterSecretStore", "name": STORE},
            "target": {"name": workload.name, "creationPolicy": "Owner"},
            "data": [
                {"secretKey": name, "remoteRef": {"key": key, "property": name}}
                for name in secret_files(workload.name)
            ],
        },
    )


def _ingress_nginx(deployed: Deployment) -> Files:
    burst, per_second = PER_ADDRESS
    rate = {
        "limit-rps": str(per_second),
        "limit-burst-multiplier": str(burst // per_second),
        "proxy-body-size": "64k",
        "proxy-buffering": "off",
        "proxy-read-timeout": str(LONGEST_STREAM_SECONDS),
        "service-upstream": "true",
        "ssl-redirect": "true",
        "upstream-vhost": deployed.workload("gateway").host,
    }
    prefix = "nginx.ingress.kubernetes.io"
    annotations = {f"{prefix}/{key}": value for key, value in rate.items()}
    return _variant(deployed, "nginx", "ingress-nginx", "ingress-nginx", annotations)


def _ingress_traefik(deployed: Deployment) -> Files:
    annotations = {
        "traefik.ingress.kubernetes.io/router.entrypoints": "websecure",
        "traefik.ingress.kubernetes.io/router.middlewares": (
            f"{APP_NAMESPACE}-rate-limit@kubernetescrd,{APP_NAMESPACE}-forgeable@kubernetescrd"
        ),
    }
    middleware = "traefik.io/v1alpha1 Middleware"
    burst, per_second = PER_ADDRESS
    limit = {"average": per_second, "burst": burst}
    # Traefik overwrites the address headers.
    removed = {name: "" for name in FORGED if "forwarded" not in name and name != "x-real-ip"}
    return _variant(
        deployed,
        "traefik",
        "traefik",
        "traefik",
        annotations,
        {
            "middleware-rate-limit.yaml": resource(
                middleware, "rate-limit", APP_NAMESPACE, spec={"rateLimit": limit}
            ),
            "middleware-forgeable.yaml": resource(
                middleware,
                "forgeable",
                APP_NAMESPACE,
                spec={"headers": {"customRequestHeaders": removed}},
            ),
        },
    )


def _variant(
    deployed: Deployment,
    ingress_class: str,
    namespace: str,
    account: str,
    annotations: dict[str, str],
    others: dict[str, Resource] | None = None,
) -> Files:
    """Return the component that replaces the edge with an ingress controller."""
    gateway = deployed.workload("gateway")
    files = Files()
    files.add(
        "ingress-gateway.yaml",
        f"Ingress through {ingress_class}, instead of the edge.",
        resource(
            INGRESS,
            gateway.name,
            gateway.namespace,
            metadata={"annotations": annotations},
            spec=_ingress(gateway, ingress_class),
        ),
    )
    for name, other in (others or {}).items():
        files.add(name, "The limits of the edge, for Traefik.", other)
    files.add(
        f"certificate-{gateway.name}.yaml",
        "The public certificate, in the namespace of the Ingress.",
        certificate(gateway.namespace),
    )
    files.add(
        f"network-policy-{namespace}.yaml",
        f"Lets {namespace} reach the gateway.",
        resource(
            NETWORK_POLICY,
            namespace,
            gateway.namespace,
            spec={
                "podSelector": {"matchLabels": {"app": gateway.name}},
                "policyTypes": ["Ingress"],
                "ingress": [
                    {
                        "from": [
                            {
                                "namespaceSelector": {
                                    "matchLabels": {"kubernetes.io/metadata.name": namespace}
                                }
                            }
                        ],
                        "ports": [{"protocol": "TCP", "port": gateway.port}],
                    }
                ],
            },
        ),
    )
    files.add(
        "kustomization.yaml",
        f"{ingress_class} instead of the edge. Its pods need Istio's proxy (namespace "
        f"{namespace}, service account {account}), since the gateway takes mutual TLS only.",
        kustomization(
            component=True,
            resources=sorted(files),
            patches=[*_without_edge(), *_admit(gateway, namespace, account)],
        ),
    )
    return files


def _ingress(gateway: Workload, ingress_class: str) -> Resource:
    backend = {"service": {"name": gateway.name, "port": {"number": gateway.port}}}
    return {
        "ingressClassName": ingress_class,
        "tls": [{"hosts": [SITE], "secretName": CERTIFICATE}],
        "rules": [
            {
                "host": SITE,
                "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
            }
        ],
    }


_OF_THE_EDGE = (
    ("v1", "Namespace", EDGE_NAMESPACE),
    ("cert-manager.io/v1", "Certificate", CERTIFICATE),
    ("networking.k8s.io/v1", "NetworkPolicy", "deny-by-default"),
    ("networking.k8s.io/v1", "NetworkPolicy", "platform"),
    ("networking.k8s.io/v1", "NetworkPolicy", "dns"),
    ("security.istio.io/v1", "PeerAuthentication", "default"),
    ("security.istio.io/v1", "AuthorizationPolicy", "deny-by-default"),
    ("telemetry.istio.io/v1", "Telemetry", "default"),
    ("apps/v1", "Deployment", EDGE),
    ("v1", "ConfigMap", PROXY_BOOTSTRAP),
    ("v1", "Service", EDGE),
    ("v1", "ServiceAccount", EDGE),
    ("policy/v1", "PodDisruptionBudget", EDGE),
    ("rbac.authorization.k8s.io/v1", "Role", EDGE),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", EDGE),
    ("networking.k8s.io/v1", "NetworkPolicy", EDGE),
    ("networking.istio.io/v1", "Gateway", EDGE),
    ("networking.istio.io/v1", "VirtualService", EDGE),
    ("networking.istio.io/v1alpha3", "EnvoyFilter", f"{EDGE}-rate-limit"),
    ("security.istio.io/v1", "AuthorizationPolicy", EDGE),
    ("telemetry.istio.io/v1", "Telemetry", EDGE),
)


def _without_edge() -> list[Resource]:
    return [
        {
            "patch": inline(
                {
                    "apiVersion": version,
                    "kind": kind,
                    "metadata": {"name": name}
                    | ({} if kind == "Namespace" else {"namespace": EDGE_NAMESPACE}),
                    "$patch": "delete",
                }
            )
        }
        for version, kind, name in _OF_THE_EDGE
    ]


def _admit(gateway: Workload, namespace: str, account: str) -> list[Resource]:
    """Permit the ingress controller to call the gateway and to verify its identity."""
    changes = {
        "AuthorizationPolicy": (
            "/spec/rules/0/from/0/source/principals",
            [principal(namespace, account)],
        ),
        "DestinationRule": ("/spec/exportTo", [".", namespace]),
    }
    return [
        {
            "target": {"kind": kind, "name": gateway.name, "namespace": gateway.namespace},
            "patch": inline([{"op": "replace", "path": path, "value": value}]),
        }
        for kind, (path, value) in changes.items()
    ]
