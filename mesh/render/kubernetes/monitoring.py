"""Scrape configuration and rules for Prometheus Operator."""

import yaml

from mesh.render.deployment import MONITORING, Deployment
from mesh.render.kubernetes.network import PROXY_METRICS_PORT
from mesh.render.manifest import Files, Resource, kustomization, resource
from mesh.render.rules import rule_files

RULES = "monitoring.coreos.com/v1 PrometheusRule"
CALLEE = r"outbound\|\d+\|[^|]*\|([^.;]+)[.;].*"
"""Istio's name of a cluster; the group is the name of the workload."""
POD_MONITOR = "monitoring.coreos.com/v1 PodMonitor"


_RENAMED = [
    {
        "action": "replace",
        "sourceLabels": labels,
        "regex": regex,
        "replacement": name,
        "targetLabel": "__name__",
    }
    for labels, regex, name in (
        (["__name__", "authz_enforce_result"], "envoy_http_rbac;denied", "envoy_http_rbac_denied"),
        (
            ["__name__"],
            "envoy_.+_http_local_rate_limit_rate_limited",
            "envoy_http_local_rate_limit_rate_limited",
        ),
    )
]
"""Istio's proxies derive other names from the same statistics than plain Envoys."""


def component(deployed: Deployment) -> Files:
    """Return the component for clusters with Prometheus Operator."""
    files = Files()
    files.add(
        f"namespace-{MONITORING}.yaml",
        "The namespace of the collector and Prometheus, outside the mesh.",
        resource("v1 Namespace", MONITORING),
    )
    files.add("pod-monitor-mesh.yaml", _WHY, _pod_monitor(deployed))
    for path, text in rule_files(deployed.mesh, runbooks=deployed.runbooks, watchers=True).items():
        name = path.rpartition("/")[2].removesuffix(".yaml")
        files.add(
            f"prometheus-rule-{name}.yaml",
            f"The rules of mesh/observability, group {name}, from the objectives of the contracts.",
            resource(RULES, f"amarre-{name}", MONITORING, spec=yaml.safe_load(text)),
        )
    files.add(
        "kustomization.yaml",
        "For clusters with Prometheus Operator.",
        kustomization(component=True, resources=sorted(files)),
    )
    return files


_WHY = """\
Scrapes workloads and proxies. The proxy's agent merges both on one port, since workloads serve
their metrics only on loopback."""


def _pod_monitor(deployed: Deployment) -> Resource:
    def relabel(source: str, target: str) -> Resource:
        return {"sourceLabels": [source], "targetLabel": target}

    pod = "__meta_kubernetes_pod"
    return resource(
        POD_MONITOR,
        "amarre",
        MONITORING,
        spec={
            "namespaceSelector": {"matchNames": list(deployed.namespaces)},
            "selector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
            "podMetricsEndpoints": [
                {
                    "path": "/stats/prometheus",
                    "interval": "15s",
                    "relabelings": [
                        {
                            "action": "keep",
                            "sourceLabels": [f"{pod}_container_name"],
                            "regex": "istio-proxy",
                        },
                        {
                            "action": "replace",
                            "sourceLabels": [f"{pod}_ip"],
                            "regex": "(.+)",
                            "replacement": f"$1:{PROXY_METRICS_PORT}",
                            "targetLabel": "__address__",
                        },
                        # The operator would name the job after this resource.
                        {"action": "replace", "replacement": "amarre", "targetLabel": "job"},
                        relabel(f"{pod}_name", "process"),
                        relabel(f"{pod}_label_app", "workload"),
                        relabel(f"{pod}_node_name", "host"),
                        relabel(f"{pod}_label_rollouts_pod_template_hash", "revision"),
                    ],
                    # Istio uses cluster names like "outbound|3001|stable|survey.amarre-surveys…" in
                    # its own label; rules and dashboards use the label of plain Envoys.
                    "metricRelabelings": [
                        {
                            "action": "replace",
                            "sourceLabels": ["cluster_name"],
                            "regex": CALLEE,
                            "replacement": "$1",
                            "targetLabel": "envoy_cluster_name",
                        },
                        *_RENAMED,
                    ],
                }
            ],
        },
    )
