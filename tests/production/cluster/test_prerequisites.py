"""The how-to page and ``amarre doctor --kubernetes`` on a real API server."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from threading import Event

import pytest

from mesh.local.commands import kubernetes_doctor as doctor
from tests.background import in_background
from tests.production import programs
from tests.production.cluster.conftest import COLLECTOR
from tests.production.cluster.control_plane import ControlPlane, Resource

CONTEXT = "test"
PAGE = programs.ROOT / "docs/how-to/run-on-kubernetes.md"
_POD: Resource = {
    "metadata": {"labels": {"part": "prerequisite"}},
    "spec": {"containers": [{"name": "one", "image": "docker.io/istio/pilot:1.27.1"}]},
}


def runs(kind: str, name: str, namespace: str, labels: dict[str, str]) -> Resource:
    """Return a workload whose pods are never started."""
    spec = {"selector": {"matchLabels": _POD["metadata"]["labels"]}, "template": _POD}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}


MISSING: dict[str, Resource] = {
    "istiod": runs("Deployment", "istiod", "istio-system", {"app": "istiod"}),
    "Istio's CNI plugin": runs(
        "DaemonSet", "istio-cni-node", "istio-system", {"k8s-app": "istio-cni-node"}
    ),
    "ClusterSecretStore amarre": {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ClusterSecretStore",
        "metadata": {"name": "amarre"},
        "spec": {"provider": {"fake": {"data": []}}},
    },
    "DNS in kube-system or openshift-dns": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns"},
        },
        "spec": {"ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]},
    },
}
"""What nobody has installed on the API server of these tests, by finding."""


@pytest.fixture
def whole(cluster: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlPlane]:
    """A cluster with every prerequisite."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    cluster.apply(MISSING.values())
    yield cluster
    for resource in MISSING.values():
        remove(cluster, resource)


def remove(cluster: ControlPlane, resource: Resource) -> None:
    """Delete *resource* if it is there."""
    metadata = resource["metadata"]
    space = ("-n", metadata["namespace"]) if "namespace" in metadata else ()
    cluster.kubectl(*space, "delete", resource["kind"], metadata["name"], "--ignore-not-found")


def missing() -> set[str]:
    """Return the missing prerequisites that the command reports."""
    return {one.what for one in doctor.examine(CONTEXT) if one.needed and not one.ok}


def test_nothing_is_missing(whole: ControlPlane) -> None:
    """
    A cluster with every prerequisite passes, and the command exits with 0.
    """
    done = subprocess.run(
        [sys.executable, "-m", "mesh.cli", "doctor", "--kubernetes", CONTEXT],
        env=os.environ | {"KUBECONFIG": str(whole.kubeconfig)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "Service monitoring/otel-collector, port 4317" in done.stdout


@pytest.mark.parametrize("what", MISSING)
def test_each_one_missing(whole: ControlPlane, what: str) -> None:
    """
    A missing prerequisite is reported, and only that one.
    """
    remove(whole, MISSING[what])

    assert {what} == missing()


def test_collector(whole: ControlPlane) -> None:
    """
    Without the collector's Service, the advice is the command that creates it.
    """
    service = COLLECTOR[-1]
    remove(whole, service)
    try:
        (found,) = [one for one in doctor.examine(CONTEXT) if one.needed and not one.ok]
    finally:
        whole.apply(COLLECTOR)

    assert "Service monitoring/otel-collector, port 4317" == found.what
    assert "create service clusterip otel-collector --tcp=4317:4317" in found.advice


def test_old_istio(whole: ControlPlane) -> None:
    """
    An istiod that is too old is reported.
    """
    image = ("set", "image", "deployment/istiod", "one=docker.io/istio/pilot:1.26.4")
    whole.kubectl("-n", "istio-system", *image)

    assert {"istiod docker.io/istio/pilot:1.26.4"} == missing()


@pytest.mark.usefixtures("whole")
def test_unknown_context() -> None:
    """
    An unknown kubectl context is reported in one sentence.
    """
    with pytest.raises(doctor.ClusterError, match=r"no context nowhere.*kubectl config"):
        doctor.examine("nowhere")


@pytest.mark.parametrize("closes", [True, False], ids=["closes connections", "refuses them"])
def test_unreachable(closes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    If no API server responds, one sentence names the context, the address and what to do.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"https://127.0.0.1:{server.getsockname()[1]}"
        content = {
            "clusters": [{"name": "one", "cluster": {"server": address}}],
            "users": [{"name": "one", "user": {"token": "none"}}],
            "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
        }
        (tmp_path / "config").write_text(json.dumps(content))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))

        def close_each(done: Event) -> None:
            server.settimeout(0.1)
            while not done.is_set():
                with suppress(TimeoutError):
                    server.accept()[0].close()

        if not closes:
            server.close()
        with (
            in_background(close_each) if closes else nullcontext(),
            pytest.raises(doctor.ClusterError, match="context one cannot be reached") as raised,
        ):
            doctor.examine("one")

    assert address in str(raised.value)
    assert "Start the cluster" in str(raised.value)


@pytest.mark.usefixtures("installed")
def test_page(whole: ControlPlane) -> None:
    """
    The commands of the how-to page work in their order. Helm is not here, so istiod is the one of
    these tests; another site is installed, so the server only checks the overlay.
    """
    remove(whole, COLLECTOR[0])
    blocks = re.findall(r"(?ms)^   ```sh\n(.+?)   ```$", PAGE.read_text())
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    helm, *commands = lines
    assert helm.startswith("helm install istiod")
    assert [0] == [n for n, line in enumerate(lines) if "helm" in line]
    folders = (Path(sys.executable).parent, programs.path("istioctl").parent, os.environ["PATH"])
    try:
        for command in commands:
            done = subprocess.run(
                ["bash", "-ec", command.replace("apply", "apply --dry-run=server")],
                cwd=programs.ROOT,
                env=os.environ | {"PATH": ":".join(map(str, folders))},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert 0 == done.returncode, f"{command}\n{done.stdout}{done.stderr}"[-4000:]
    finally:
        whole.apply(COLLECTOR)
