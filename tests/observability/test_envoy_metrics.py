"""The Envoy metrics that rules and dashboards use exist in the real Envoy."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from mesh.chassis.testing import free_port
from mesh.render import signals

ENVOY = shutil.which("envoy") or str(Path(sys.executable).with_name("envoy"))
_TYPE = "type.googleapis.com/{}"


def bootstrap(admin: int) -> str:
    """
    One cluster with circuit breakers and outlier detection, without endpoints; one listener with
    limits.
    """
    nobody = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9}}}
    cluster = {
        "name": "survey",
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [{"max_requests": 1}]},
        "outlier_detection": {},
        "load_assignment": {
            "cluster_name": "survey",
            "endpoints": [{"lb_endpoints": [{"endpoint": nobody}]}],
        },
    }
    filters = "envoy.extensions.filters.http"
    bucket = {"max_tokens": 1, "fill_interval": "1s"}
    manager = {
        "@type": _TYPE.format(
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        ),
        "stat_prefix": "inbound",
        "route_config": {"virtual_hosts": []},
        "http_filters": [
            {
                "name": "rate",
                "typed_config": {
                    "@type": _TYPE.format(f"{filters}.local_ratelimit.v3.LocalRateLimit"),
                    "stat_prefix": "edge",
                    "token_bucket": bucket,
                },
            },
            {
                "name": "callers",
                "typed_config": {"@type": _TYPE.format(f"{filters}.rbac.v3.RBAC"), "rules": {}},
            },
            {
                "name": "router",
                "typed_config": {"@type": _TYPE.format(f"{filters}.router.v3.Router")},
            },
        ],
    }
    listener = {
        "name": "inbound",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": free_port()}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return yaml.safe_dump(
        {
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
            "static_resources": {"clusters": [cluster], "listeners": [listener]},
        }
    )


@pytest.mark.envoy
@pytest.mark.skipif(not Path(ENVOY).exists(), reason="envoy is missing: make installs it")
def test_names(tmp_path: Path) -> None:
    """
    Every Envoy metric in the schema of signals exists.
    """
    admin = free_port()
    file = tmp_path / "envoy.yaml"
    file.write_text(bootstrap(admin))
    command = [ENVOY, "-c", str(file), "--disable-hot-restart", "--concurrency", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as envoy:
        try:
            found = set(re.findall(r"^(envoy_\w+)", stats(admin), re.MULTILINE))
        finally:
            envoy.kill()

    assert set(signals.schema()["foreign_metrics"]["envoy"]) - found == set()


def stats(admin: int) -> str:
    """Return Envoy's metrics as soon as it responds and has its cluster."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        try:
            text = httpx.get(f"http://127.0.0.1:{admin}/stats/prometheus", trust_env=False).text
        except httpx.TransportError:
            text = ""
        if "membership_total" in text:
            return text
        time.sleep(0.05)
    raise AssertionError("Envoy did not start within 20 s")
