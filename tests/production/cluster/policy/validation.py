"""
Validates the configuration from istiod with a real Envoy, as one static configuration, without
starting it.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.production.cluster.policy.xds import find


def refusal(raw: Any, folder: Path, envoy: str) -> str:
    """Return why *envoy* rejects istiod's configuration *raw*; empty if it accepts it."""
    bootstrap = folder / "envoy.json"
    bootstrap.write_text(json.dumps(_static(raw)))
    done = subprocess.run(
        [envoy, "--mode", "validate", "-c", str(bootstrap), "--log-level", "error"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return (done.stdout + done.stderr)[-2000:] if done.returncode else ""


def _static(raw: Any) -> Any:
    routes = {r["name"]: r for r in _named(raw, "routeConfig")}
    clusters, listeners = _named(raw, "cluster"), _named(raw, "listener")
    return {
        "node": {"id": "sidecar~10.0.0.1~test.test~test.svc.cluster.local", "cluster": "test"},
        "static_resources": {
            "clusters": [_own(name) for name in ("sds-grpc", "xds-grpc")]
            + [_cluster(c) for c in clusters],
            "listeners": [_inline(one, routes) for one in listeners],
        },
    }


def _named(raw: Any, key: str) -> list[Any]:
    """Return the resources named *key*, without the type of the `Any`."""
    return [
        {name: value for name, value in one.items() if name != "@type"}
        for one in find(raw, key)
        if isinstance(one, dict) and "name" in one
    ]


def _own(name: str) -> Any:
    """Return a cluster of Istio's bootstrap, which istiod does not send."""
    return {"name": name, "connectTimeout": "1s", "type": "STATIC"}


def _cluster(cluster: Any) -> Any:
    """Return *cluster* with no endpoints instead of those that istiod would send later."""
    if cluster.get("type") != "EDS":
        return cluster
    rest = {k: v for k, v in cluster.items() if k not in {"edsClusterConfig", "type"}}
    return {**rest, "type": "STATIC"}


def _inline(node: Any, routes: dict[str, Any]) -> Any:
    """Return *node* with routes instead of their names."""
    if isinstance(node, list):
        return [_inline(value, routes) for value in node]
    if not isinstance(node, dict):
        return node
    found = {key: _inline(value, routes) for key, value in node.items() if key != "rds"}
    if "rds" in node:
        found["routeConfig"] = routes[node["rds"]["routeConfigName"]]
    return found
