"""A new service is added in one place; this is what appears everywhere."""

import yaml

from mesh.contract import policy
from mesh.render import deployment, istio, kubernetes
from tests.mesh.render.addition import NAME, deployed

BEFORE = deployment.load(policy.load())


def test_istio() -> None:
    """
    Istio gets its permission, scope, routes and breakers.
    """
    new = set(istio.files(deployed())) - set(istio.files(BEFORE))

    assert {
        f"base/{kind}-{NAME}.yaml"
        for kind in ("authorization-policy", "destination-rule", "sidecar", "virtual-service")
    } == new


def test_its_own_figures() -> None:
    """
    The rendered figures are those of its contract.
    """
    files = istio.files(deployed())
    rule = yaml.safe_load(files[f"base/destination-rule-{NAME}.yaml"])["spec"]["trafficPolicy"]
    routes = yaml.safe_load(files[f"base/virtual-service-{NAME}.yaml"])["spec"]["http"]

    assert 40 == rule["connectionPool"]["http"]["http2MaxRequests"]
    assert 7 == rule["outlierDetection"]["consecutiveGatewayErrors"]
    assert {"4s", "5s"} == {route["timeout"] for route in routes}


def test_kubernetes() -> None:
    """
    Kubernetes gets its workload, account, settings, budgets, network, secret and canary.
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


def test_callers_learn_of_it() -> None:
    """
    The gateway and the health service may reach it, and know where it is.
    """
    files = kubernetes.files(deployed())
    for caller in ("gateway", "health"):
        settings = yaml.safe_load(files[f"base/config-map-{caller}.yaml"])["data"]
        network = files[f"base/network-policy-{caller}.yaml"]

        assert f"{NAME}.amarre-app.svc.cluster.local:3005" in settings["AMARRE_PEERS"]
        assert f"app: {NAME}" in network
