"""Workloads: deployment, service, service account, settings and disruption budget of each."""

import json
from collections.abc import Mapping

from mesh.chassis.telemetry import names
from mesh.render.deployment import (
    ACCOUNTS,
    APP_NAMESPACE,
    CLUSTER_DOMAIN,
    DRAIN_SECONDS,
    EDGE_NAMESPACE,
    KEY_SET_PORT,
    MONITORING,
    SOCKETS,
    Deployment,
    Workload,
)
from mesh.render.docker import USER, version
from mesh.render.environment import (
    SECRETS,
    SITE,
    Place,
    environment,
    probe_command,
    secret_files,
)
from mesh.render.envoy import overload
from mesh.render.manifest import Files, Resource, inline, resource

MIGRATION = "migrate-auth"
IMAGE = "registry.example.org/amarre"
REPLICAS, MOST_REPLICAS = 3, 9
PROXY_CONFIG = "proxy.istio.io/config"
BOOTSTRAP = "sidecar.istio.io/bootstrapOverride"
PROXY_BOOTSTRAP = "proxy-bootstrap"
PROXY_GROUP = 1337
"""The group of Istio's proxy, which can open sockets in folders of this group."""
HTTPS_PORT = "443"
BUSY_PERCENT = 70
BUSY_SHARE = 2
"""Autoscaling targets 1/BUSY_SHARE of the concurrency limit per replica."""


def place(deployed: Deployment) -> Place:
    """Return the addresses of workloads and backends on Kubernetes."""
    auth = deployed.workload("auth")
    return Place(
        site=f"https://{SITE}",
        address=lambda workload: f"{workload.host}:{workload.port}",
        authority=f"{auth.host}:{KEY_SET_PORT}",
        collector=f"http://otel-collector.{MONITORING}.{CLUSTER_DOMAIN}:4317",
        namespace=APP_NAMESPACE,
        namespaces=True,
    )


def add(files: Files, deployed: Deployment) -> None:
    """Add namespaces and workloads of *deployed* to *files*."""
    for namespace in deployed.namespaces:
        _namespace(files, namespace)
        _bootstrap(files, namespace)
    for workload in deployed.workloads:
        _account(files, workload.name, workload.namespace)
        _settings(files, deployed, workload)
        _deployment(files, workload)
        _service(files, workload)
        _disruption_budget(files, workload)
        _autoscaler(files, deployed, workload)
    for account in ACCOUNTS:
        _account(files, account, APP_NAMESPACE)
    _migration(files, deployed.workload("auth"))


def _namespace(files: Files, name: str) -> None:
    labels = {"istio-injection": "enabled"}
    for mode in ("enforce", "audit", "warn"):
        labels[f"pod-security.kubernetes.io/{mode}"] = "restricted"
    files.add(
        f"namespace-{name}.yaml",
        "Injects proxies and admits only pods of the restricted profile; both together require "
        "Istio's CNI plugin.",
        resource("v1 Namespace", name, metadata={"labels": labels}),
    )


def _bootstrap(files: Files, namespace: str) -> None:
    capacity = overload.EDGE if namespace == EDGE_NAMESPACE else overload.INNER
    merged = json.dumps(overload.istio_bootstrap(capacity), indent=2)
    files.add(
        f"config-map-{namespace}-{PROXY_BOOTSTRAP}.yaml",
        "Overload actions of the proxies under memory pressure. Istio's agent merges them into the "
        "bootstrap.",
        resource(
            "v1 ConfigMap",
            PROXY_BOOTSTRAP,
            namespace,
            data={"custom_bootstrap.json": merged},
        ),
    )


def _account(files: Files, name: str, namespace: str) -> None:
    files.add(
        f"service-account-{name}.yaml",
        f"The identity spiffe://amarre.local/ns/{namespace}/sa/{name}, without permissions.",
        resource("v1 ServiceAccount", name, namespace, automountServiceAccountToken=False),
    )


def _settings(files: Files, deployed: Deployment, workload: Workload) -> None:
    files.add(
        f"config-map-{workload.name}.yaml",
        f"The settings of {workload.name}; secrets are in the secret {workload.name}.",
        resource(
            "v1 ConfigMap",
            workload.name,
            workload.namespace,
            data=environment(deployed, workload, place(deployed)),
        ),
    )


def _deployment(files: Files, workload: Workload) -> None:
    labels = {"app": workload.name}
    files.add(
        f"deployment-{workload.name}.yaml",
        f"Runs {workload.name} with an injected proxy, which reaches it over a Unix socket. The\n"
        "autoscaler, or a Rollout, sets the number of replicas.",
        resource(
            "apps/v1 Deployment",
            workload.name,
            workload.namespace,
            metadata={"labels": labels},
            spec={
                "revisionHistoryLimit": 5,
                "selector": {"matchLabels": labels},
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
                },
                "template": {
                    "metadata": {"labels": labels, "annotations": annotations(workload)},
                    "spec": pod(workload),
                },
            },
        ),
    )


def proxy_config(
    environment: str = "production", variables: Mapping[str, str] | None = None, **settings: object
) -> str:
    """
    Return the configuration of a pod's proxy: *settings*, *variables*, and its identity in traces.

    Kubernetes fills in the name of the pod.
    """
    resource = {
        "service.namespace": "amarre",
        "service.instance.id": "$(POD_NAME)",
        "service.version": version(),
        "deployment.environment.name": environment,
    }
    attributes = ",".join(f"{name}={value}" for name, value in resource.items())
    metadata = {**(variables or {}), "OTEL_RESOURCE_ATTRIBUTES": attributes}
    return inline({**settings, "proxyMetadata": metadata})


def annotations(workload: Workload) -> dict[str, str]:
    """Return the pod annotations for Istio's injection."""
    mount = [{"name": "sockets", "mountPath": SOCKETS}]
    found = {
        PROXY_CONFIG: proxy_config(),
        BOOTSTRAP: PROXY_BOOTSTRAP,
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(workload.metrics_port),
        "prometheus.io/path": "/metrics",
        "sidecar.istio.io/userVolumeMount": json.dumps(mount),
    }
    if workload.name == "health":
        # A proxy accepts every connection, so probes through it would always succeed.
        found["traffic.sidecar.istio.io/excludeOutboundPorts"] = HTTPS_PORT
    return found


def pod(workload: Workload) -> Resource:
    """Return the pod of *workload*."""
    labels = {"matchLabels": {"app": workload.name}}
    spread = [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": when,
            "labelSelector": labels,
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key, when in (
            ("kubernetes.io/hostname", "ScheduleAnyway"),
            ("topology.kubernetes.io/zone", "ScheduleAnyway"),
        )
    ]
    return {
        "serviceAccountName": workload.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": DRAIN_SECONDS + 20,
        "topologySpreadConstraints": spread,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": PROXY_GROUP,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(workload)],
        "volumes": [
            {"name": "sockets", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "temporary", "emptyDir": {"medium": "Memory", "sizeLimit": "32Mi"}},
            {"name": "secrets", "secret": secret_volume(workload)},
        ],
    }


def secret_volume(workload: Workload) -> Resource:
    """Return the secret of *workload* as a volume with exactly the files that it needs."""
    items = [{"key": name, "path": name} for name in secret_files(workload.name)]
    return {"secretName": workload.name, "defaultMode": 0o440, "items": items}


def _container(workload: Workload) -> Resource:
    probe = {"exec": {"command": probe_command(workload)}, "timeoutSeconds": 3}
    return {
        "name": workload.name,
        "image": f"{IMAGE}/{workload.name}:{version()}",
        "imagePullPolicy": "IfNotPresent",
        "envFrom": [{"configMapRef": {"name": workload.name}}],
        "env": [
            {
                "name": "AMARRE_INSTANCE",
                "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}},
            }
        ],
        # Measured: 97 to 130 MB at rest; see docs/explanation/capacity.md.
        "resources": {
            "requests": {"cpu": "100m", "memory": "160Mi"},
            "limits": {"memory": "384Mi"},
        },
        "securityContext": restricted(),
        "startupProbe": {**probe, "periodSeconds": 2, "failureThreshold": 30},
        "readinessProbe": {**probe, "periodSeconds": 10, "failureThreshold": 2},
        # Live if it responds at all, ready or not; a restart does not fix REDCap.
        "livenessProbe": {
            "exec": {"command": [*probe_command(workload), "alive"]},
            "timeoutSeconds": 3,
            "periodSeconds": 20,
            "failureThreshold": 3,
        },
        # Callers are notified before calls are rejected.
        "lifecycle": {"preStop": {"sleep": {"seconds": 5}}},
        "volumeMounts": [
            {"name": "sockets", "mountPath": SOCKETS},
            {"name": "temporary", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod
            {"name": "secrets", "mountPath": SECRETS, "readOnly": True},
        ],
    }


def restricted() -> Resource:
    """Return the security context of a container of the restricted profile."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _service(files: Files, workload: Workload) -> None:
    protocol = "grpc" if workload.is_grpc else "http"
    ports = [_port(protocol, workload.port)]
    if workload.name == "auth":
        ports.append(_port("http-keys", KEY_SET_PORT, "http"))
    files.add(
        f"service-{workload.name}.yaml",
        f"The name under which callers' proxies know {workload.name}.",
        resource(
            "v1 Service",
            workload.name,
            workload.namespace,
            metadata={"labels": {"app": workload.name}},
            spec={"selector": {"app": workload.name}, "ports": ports},
        ),
    )


def _port(name: str, number: int, protocol: str = "") -> Resource:
    return {
        "name": name,
        "port": number,
        "targetPort": number,
        "protocol": "TCP",
        "appProtocol": protocol or name,
    }


def _disruption_budget(files: Files, workload: Workload) -> None:
    files.add(
        f"pod-disruption-budget-{workload.name}.yaml",
        f"Permits draining nodes one replica of {workload.name} at a time.",
        resource(
            "policy/v1 PodDisruptionBudget",
            workload.name,
            workload.namespace,
            spec={
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": {"app": workload.name}},
            },
        ),
    )


def _autoscaler(files: Files, deployed: Deployment, workload: Workload) -> None:
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": BUSY_PERCENT}}
    metrics: list[Resource] = [{"type": "Resource", "resource": cpu}]
    why = ""
    if workload.is_grpc:
        limit = deployed.mesh.service(workload.name).max_concurrent_requests
        target = {"type": "AverageValue", "averageValue": str(limit // BUSY_SHARE)}
        in_flight = {"metric": {"name": names.RPC_SERVER_IN_FLIGHT}, "target": target}
        metrics.append({"type": "Pods", "pods": in_flight})
        why = f"\nMirrors max_concurrent_requests {limit}; the metric needs prometheus-adapter."
    files.add(
        f"horizontal-pod-autoscaler-{workload.name}.yaml",
        f"Adds replicas of {workload.name} before they reach their limits.{why}",
        resource(
            "autoscaling/v2 HorizontalPodAutoscaler",
            workload.name,
            workload.namespace,
            spec={
                "scaleTargetRef": {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "name": workload.name,
                },
                "minReplicas": REPLICAS,
                "maxReplicas": MOST_REPLICAS,
                "metrics": metrics,
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
            },
        ),
    )


def _migration(files: Files, auth: Workload) -> None:
    spec = pod(auth)
    (container,) = spec["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe", "lifecycle"):
        del container[probe]
    container["command"] = ["python", "-m", "auth_svc.migrations"]
    spec["restartPolicy"] = "OnFailure"
    del spec["topologySpreadConstraints"]
    files.add(
        f"job-{MIGRATION}.yaml",
        "Migrates Auth's database before the new version starts; otherwise Auth does so itself, "
        "one replica at a time.",
        resource(
            "batch/v1 Job",
            f"{MIGRATION}-{version()}",
            auth.namespace,
            metadata={"annotations": {"argocd.argoproj.io/hook": "PreSync"}},
            spec={
                "backoffLimit": 3,
                "ttlSecondsAfterFinished": 600,
                "template": {
                    "metadata": {"labels": {"app": MIGRATION, "sidecar.istio.io/inject": "false"}},
                    "spec": spec,
                },
            },
        ),
    )
