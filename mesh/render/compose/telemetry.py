"""Prometheus and Alertmanager; collector, traces, logs and Grafana in profiles."""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from mesh.render import collector
from mesh.render.compose import envoys
from mesh.render.compose.workloads import hardened
from mesh.render.deployment import Deployment
from mesh.render.readers import READERS
from mesh.render.rules import scraping
from mesh.render.rules.scraping import Target

Service = dict[str, Any]
OBSERVABILITY = "../../observability"
PROFILE = "telemetry"
DAYS = 30
HOST = "host"
"""Prometheus' name for the host of the containers, whose node exporter is scraped."""
(SECRET,) = READERS["grafana"].secrets


def services() -> dict[str, Service]:
    """Return the services; each runs with the committed files of ``mesh/observability``."""
    return {
        "prometheus": _prometheus(),
        "alertmanager": _alertmanager(),
        "otel-collector": _backend(
            "otel-collector",
            ["--config=/etc/otelcol/otel-collector.yaml"],
            [_committed("collector/otel-collector.yaml", "/etc/otelcol")],
        ),
        "tempo": _backend(
            "tempo",
            ["-config.file=/etc/tempo/tempo.yaml"],
            [_committed("tempo/tempo.yaml", "/etc/tempo")],
        ),
        "jaeger": _backend(
            "jaeger",
            ["--config=/etc/jaeger/jaeger.yaml"],
            [_committed("jaeger/jaeger.yaml", "/etc/jaeger")],
            # Its own spans would appear as a service in the graph.
            {"OTEL_TRACES_SAMPLER": "always_off"},
        ),
        "loki": _backend(
            "loki",
            ["-config.file=/etc/loki/loki.yaml"],
            [_committed("loki/loki.yaml", "/etc/loki")],
        ),
        "grafana": _grafana(),
        "alloy": _alloy(),
    }


def volumes() -> dict[str, Any]:
    """Return the volumes."""
    names = ("prometheus", "alertmanager", "tempo", "jaeger", "loki", "grafana", "alloy")
    return {name: {} for name in names}


def files(deployed: Deployment) -> dict[str, str]:
    """Return the scrape configuration of Compose."""
    return {
        "telemetry/prometheus.yaml": scraping.configuration(
            list(_targets(deployed)),
            alertmanager="alertmanager:9093",
            host=HOST,
            watched=_WATCHED,
        )
    }


_WATCHED = {
    "prometheus": "localhost:9090",
    "alertmanager": "alertmanager:9093",
    "otel-collector": f"otel-collector:{collector.OWN_METRICS}",
}


def _targets(deployed: Deployment) -> Iterator[Target]:
    for workload in deployed.workloads:
        name, proxy = workload.name, envoys.container(workload)
        yield Target("amarre", name, name, f"{name}:{workload.metrics_port}")
        yield Target("envoy", proxy, name, f"{proxy}:{envoys.STATS}")


def _committed(name: str, folder: str) -> str:
    """Return the mount of a file or folder of ``mesh/observability`` in *folder*."""
    return f"{OBSERVABILITY}/{name}:{folder}/{PurePosixPath(name).name}:ro"


def _program(name: str, mounted: list[str], limit: str) -> Service:
    """Return the service *name* with its user, and its data in the volume of that name."""
    reader = READERS[name]
    data = [f"{name}:{reader.data}"] if reader.data else []
    return {
        "image": reader.image,
        "user": reader.user,
        "volumes": [*mounted, *data],
        **hardened(limit),
    }


def _prometheus() -> Service:
    mounted = [
        "./telemetry/prometheus.yaml:/etc/prometheus/prometheus.yaml:ro",
        _committed("prometheus/rules", "/etc/prometheus"),
        # Other applications of the site: docs/how-to/observe-other-applications.md
        _committed("prometheus/applications", "/etc/prometheus"),
    ]
    return {
        **_program("prometheus", mounted, "1G"),
        "command": [
            "--config.file=/etc/prometheus/prometheus.yaml",
            f"--storage.tsdb.path={READERS['prometheus'].data}",
            f"--storage.tsdb.retention.time={DAYS}d",
            "--enable-feature=exemplar-storage",
            # Tempo writes its service graph; applications push through the collector.
            "--web.enable-remote-write-receiver",
        ],
        "networks": ["telemetry", "outside"],
        "extra_hosts": {HOST: "${AMARRE_HOST_ADDRESS:-host-gateway}"},
    }


def _alertmanager() -> Service:
    mounted = [
        _committed("alertmanager/alertmanager.yaml", "/etc/alertmanager"),
        _committed("alertmanager/amarre.tmpl", "/etc/alertmanager"),
        "./secrets/alertmanager:/etc/alertmanager/secrets:ro",
    ]
    return {
        **_program("alertmanager", mounted, "128M"),
        "command": [
            "--config.file=/etc/alertmanager/alertmanager.yaml",
            f"--storage.path={READERS['alertmanager'].data}",
            # One replica: there are no peers for gossip.
            "--cluster.listen-address=",
        ],
        "networks": ["telemetry", "outside"],
    }


def _backend(
    name: str,
    command: list[str],
    mounted: list[str],
    variables: Mapping[str, str] | None = None,
) -> Service:
    return {
        **_program(name, mounted, "512M"),
        "profiles": [PROFILE],
        "command": command,
        "tmpfs": ["/tmp"],  # noqa: S108 - the container's own
        "networks": ["telemetry"],
        **({"environment": dict(variables)} if variables else {}),
    }


def _grafana() -> Service:
    found = _backend(
        "grafana",
        [],
        [
            _committed("grafana/provisioning", "/etc/grafana"),
            _committed("grafana/dashboards", "/var/lib/grafana"),
        ],
    )
    del found["command"]
    found["environment"] = {
        "GF_AUTH_ANONYMOUS_ENABLED": "false",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_SECURITY_ADMIN_PASSWORD__FILE": f"/run/secrets/{SECRET}",
    }
    found["secrets"] = [SECRET]
    # Published on loopback only: reach it through an SSH tunnel to the host.
    found["networks"] = ["telemetry", "outside"]
    found["ports"] = ["127.0.0.1:3300:3000"]
    return found


def _alloy() -> Service:
    """Return the service that sends container logs, including the proxies', to Loki."""
    found = _backend(
        "alloy",
        ["run", f"--storage.path={READERS['alloy'].data}", "/etc/alloy/config.alloy"],
        [
            _committed("alloy/config.alloy", "/etc/alloy"),
            "/var/run/docker.sock:/var/run/docker.sock:ro",
        ],
    )
    found["profiles"] = ["container-logs"]
    return found
