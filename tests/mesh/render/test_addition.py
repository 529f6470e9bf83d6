"""A new service is added in one place; these tests check what is derived from it."""

import yaml

from mesh.contract import policy
from mesh.render import compose, deployment, istio, kubernetes
from mesh.render.rules import rule_files
from tests.mesh.render.addition import NAME, contract, deployed

BEFORE = deployment.load(policy.load())


def test_istio() -> None:
    """
    Istio gets its authorization policy, scope, routes and circuit breakers.
    """
    new = set(istio.files(deployed())) - set(istio.files(BEFORE))

    assert {
        f"base/{kind}-{NAME}.yaml"
        for kind in (
            "authorization-policy",
            "destination-rule",
            "envoy-filter",
            "sidecar",
            "virtual-service",
        )
    } == new


def test_its_own_figures() -> None:
    """
    The rendered values are those of its contract.
    """
    files = istio.files(deployed())
    rule = yaml.safe_load(files[f"base/destination-rule-{NAME}.yaml"])["spec"]["trafficPolicy"]
    routes = yaml.safe_load(files[f"base/virtual-service-{NAME}.yaml"])["spec"]["http"]

    assert 40 == rule["connectionPool"]["http"]["http2MaxRequests"]
    assert 7 == rule["outlierDetection"]["consecutiveLocalOriginFailures"]
    assert {"4s", "5s"} == {route["timeout"] for route in routes}


def test_kubernetes() -> None:
    """
    Kubernetes gets its workload, account, settings, budgets, network policies, secret and canary.
    """
    new = set(kubernetes.files(deployed())) - set(kubernetes.files(BEFORE))
    base = (
        "config-map",
        "deployment",
        "horizontal-pod-autoscaler",
        "network-policy",
        "pod-disruption-budget",
        "service",
        "service-account",
    )

    assert {f"base/{kind}-{NAME}.yaml" for kind in base} | {
        f"components/external-secrets/external-secret-{NAME}.yaml",
        f"components/rollouts/analysis-template-{NAME}.yaml",
        f"components/rollouts/rollout-{NAME}.yaml",
    } == new


def test_compose() -> None:
    """
    Compose gets it with its Envoy and the Envoy's files; Prometheus scrapes both.
    """
    before, after = compose.files(BEFORE), compose.files(deployed())
    services = set(yaml.safe_load(after["compose.yaml"])["services"])
    asked = yaml.safe_load(after["telemetry/prometheus.yaml"])["scrape_configs"]
    processes = {t["labels"]["process"] for job in asked[:2] for t in job["static_configs"]}

    assert {NAME, f"{NAME}-envoy"} == services - set(
        yaml.safe_load(before["compose.yaml"])["services"]
    )
    assert {NAME, f"{NAME}-envoy"} <= processes
    assert f"envoy/{NAME}-envoy/envoy.yaml" in set(after) - set(before)
    assert f"{NAME}-envoy" in after["envoy/gateway-envoy/clusters/callees.yaml"]


def test_objectives() -> None:
    """
    The objectives of its method are recorded, so that budget alerts cover it.
    """
    before, after = rule_files(policy.load()), rule_files(contract())

    assert set(before) == set(after)
    assert "ReadNote" in after["rules/recording.yaml"]
    assert "ReadNote" not in before["rules/recording.yaml"]


def test_callers_learn_of_it() -> None:
    """
    The gateway and the health service may reach it, and have its address.
    """
    files = kubernetes.files(deployed())
    for caller in ("gateway", "health"):
        settings = yaml.safe_load(files[f"base/config-map-{caller}.yaml"])["data"]
        network = files[f"base/network-policy-{caller}.yaml"]

        assert f"{NAME}.amarre-app.svc.cluster.local:3005" in settings["AMARRE_PEERS"]
        assert f"app: {NAME}" in network
