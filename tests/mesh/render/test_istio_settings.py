"""The rendered files as a whole, and Istio's settings of logs, traces and statistics."""

import re
from typing import Any

import yaml

from mesh import topology
from mesh.render import istio, registry, signals

FILES = istio.render()
RESOURCES = [
    yaml.safe_load(text)
    for name, text in FILES.items()
    if name.startswith("base/") and not name.endswith("kustomization.yaml")
]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [r for r in RESOURCES if r["kind"] == kind]


class TestFiles:
    def test_committed(self) -> None:
        """
        The committed files are up to date with the contracts.
        """
        assert [] == registry.drift(FILES, registry.committed("istio"))

    def test_stable(self) -> None:
        """
        The same contracts give the same bytes.
        """
        assert FILES == istio.render()

    def test_comment_first(self) -> None:
        """
        Every file starts with a comment on its purpose.
        """
        assert [] == [name for name, text in FILES.items() if not text.startswith("# ")]

    def test_kustomization_lists_every_file(self) -> None:
        """
        Every rendered file is applied.
        """
        listed = yaml.safe_load(FILES["base/kustomization.yaml"])["resources"]

        assert listed == sorted(
            n.removeprefix("base/")
            for n in FILES
            if n.startswith("base/") and n != "base/kustomization.yaml"
        )

    def test_names_are_unique(self) -> None:
        """
        No two resources of a kind have the same name and namespace.
        """
        names = [(r["kind"], r["metadata"]["namespace"], r["metadata"]["name"]) for r in RESOURCES]

        assert len(names) == len(set(names))

    def test_mesh_settings(self) -> None:
        """
        The installation sets trust domain, TLS 1.3 and a closed registry.
        """
        values = yaml.safe_load(FILES["istiod-values.yaml"])["meshConfig"]

        assert topology.TRUST_DOMAIN == values["trustDomain"]
        assert "TLSV1_3" == values["meshMTLS"]["minProtocolVersion"]
        assert "REGISTRY_ONLY" == values["outboundTrafficPolicy"]["mode"]

    def test_what_people_type_is_not_told(self) -> None:
        """
        For browser requests, logs contain no paths, and spans no URLs; the providers are of kinds
        that Istio supports, and every used one is defined.

        Source:
            Istio, MeshConfig.ExtensionProvider.
        """
        values = yaml.safe_load(FILES["istiod-values.yaml"])["meshConfig"]
        kinds = {p["name"]: (set(p) - {"name"}).pop() for p in values["extensionProviders"]}
        logs = {
            p["name"]: p["envoyFileAccessLog"]["logFormat"]["labels"]
            for p in values["extensionProviders"]
            if "envoyFileAccessLog" in p
        }
        telemetry = {r["metadata"]["name"]: r["spec"] for r in of_kind("Telemetry")}
        used = [
            (name, rule.get("match", {}).get("mode"), provider["name"])
            for name, spec in telemetry.items()
            for rule in [*spec.get("accessLogging", []), *spec.get("tracing", [])]
            for provider in rule["providers"]
        ]
        met = {
            log
            for name, side, log in used
            if (name, side) in {("edge", None), ("gateway", "SERVER")}
        }

        assert {"opentelemetry", "envoyFileAccessLog"} == set(kinds.values())
        assert {provider for _, _, provider in used} == set(kinds)
        assert [1] == [
            p["opentelemetry"]["maxTagLength"]
            for p in values["extensionProviders"]
            if "opentelemetry" in p
        ]
        assert 1 == len(met)
        assert not any("PATH" in value for log in met for value in logs[log].values())


def test_lines_of_sent_calls() -> None:
    """
    A proxy logs outbound calls only if they fail or are slow, so that telemetry exports and health
    checks add no lines.
    """
    for telemetry in of_kind("Telemetry"):
        for lines in telemetry["spec"]["accessLogging"]:
            if lines.get("match", {}).get("mode") == "CLIENT":
                assert "grpc_status != 0" in lines["filter"]["expression"]
            elif "match" in lines:
                assert "!request.url_path.startsWith" in lines["filter"]["expression"]


def test_clusters_are_logged_by_their_name() -> None:
    """
    Log lines have the plain name of a cluster, without the suffix of Istio's statistics.
    """
    assert "%UPSTREAM_CLUSTER%" not in FILES["istiod-values.yaml"]


def test_statistics_of_proxies() -> None:
    """
    Istio's proxies keep the statistics that alerts and dashboards use; by default they keep hardly
    any.
    """
    stats = (
        *(f"circuit_breakers.default.{kind}_open" for kind in ("rq", "rq_pending", "cx")),
        "outlier_detection.ejections_active",
        *("upstream_rq_retry", "upstream_rq_active_overflow", "upstream_rq_pending_overflow"),
        *("upstream_rq_total", "upstream_cx_active", "membership_healthy", "membership_total"),
    )
    read = {m for m in signals.schema()["foreign_metrics"]["envoy"] if "_cluster_" in m}
    values = yaml.safe_load(FILES["istiod-values.yaml"])["meshConfig"]["defaultConfig"]
    kept = values["proxyStatsMatcher"]["inclusionRegexps"]

    assert read == {f"envoy_cluster_{stat.replace('.', '_')}" for stat in stats}
    for stat in stats:
        name = f"cluster.outbound|3001||survey.amarre-surveys.svc.cluster.local.{stat}"
        assert any(re.fullmatch(pattern, name) for pattern in kept), stat
