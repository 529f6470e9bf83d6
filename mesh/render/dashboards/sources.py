"""Grafana's data sources, with links between exemplars, traces and logs."""

from typing import Any

from grafana_foundation_sdk.models.dashboard import DataSourceRef

from mesh.render.yaml_text import document

Files = dict[str, str]
PROMETHEUS, LOKI, TEMPO, JAEGER = "prometheus", "loki", "tempo", "jaeger"
SOURCES = (PROMETHEUS, LOKI, TEMPO, JAEGER)
"""The uid of each, which is also its type."""


def reference(uid: str) -> DataSourceRef:
    """Return a panel's reference to a data source."""
    return DataSourceRef(uid, uid)


def files() -> Files:
    """Return Grafana's provisioning files."""
    return {
        "provisioning/datasources/amarre.yaml": document(
            "Data sources, with links from exemplars to traces and from spans to log lines.",
            {"apiVersion": 1, "datasources": [_source(uid) for uid in SOURCES]},
        ),
        "provisioning/dashboards/amarre.yaml": document(
            "The dashboard provider of Grafana.",
            {
                "apiVersion": 1,
                "providers": [
                    {
                        "name": "amarre",
                        "folder": "AMARRE",
                        "type": "file",
                        "allowUiUpdates": False,
                        "options": {"path": "/var/lib/grafana/dashboards"},
                    }
                ],
            },
        ),
    }


_URLS = {
    PROMETHEUS: "http://prometheus:9090",
    LOKI: "http://loki:3100",
    TEMPO: "http://tempo:3200",
    JAEGER: "http://jaeger:16686",
}
_TO_LOGS = {
    "datasourceUid": LOKI,
    "spanStartTimeShift": "-1m",
    "spanEndTimeShift": "1m",
    "tags": [{"key": "service.name", "value": "service_name"}],
    "filterByTraceID": True,
}
_OPTIONS: dict[str, dict[str, Any]] = {
    PROMETHEUS: {
        "timeInterval": "15s",
        "httpMethod": "POST",
        "exemplarTraceIdDestinations": [{"name": "trace_id", "datasourceUid": TEMPO}],
    },
    LOKI: {
        "derivedFields": [
            {
                "name": "trace",
                "matcherType": "label",
                "matcherRegex": "trace_id",
                # Grafana would expand a single dollar sign as a variable.
                "url": "$${__value.raw}",
                "datasourceUid": TEMPO,
            }
        ]
    },
    TEMPO: {
        "tracesToLogsV2": _TO_LOGS,
        "serviceMap": {"datasourceUid": PROMETHEUS},
        "nodeGraph": {"enabled": True},
    },
    JAEGER: {"tracesToLogsV2": _TO_LOGS, "nodeGraph": {"enabled": True}},
}


def _source(uid: str) -> dict[str, Any]:
    return {
        "name": uid.capitalize(),
        "uid": uid,
        "type": uid,
        "access": "proxy",
        "url": _URLS[uid],
        "isDefault": uid == PROMETHEUS,
        "editable": False,
        "jsonData": _OPTIONS[uid],
    }
