"""The proxies of production: their statistics, and what they give up when memory runs short."""

import re
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
import yaml

from mesh.render import registry, signals
from tests.production.cluster.control_plane import eventually
from tests.production.cluster.traffic.running_mesh import SITE, Mesh
from tests.production.namespaces import inside

POD_MONITOR = registry.committed("kubernetes") / "components/monitoring/pod-monitor-mesh.yaml"
CROWD = 6000
"""Connections of one client: fewer than the edge accepts, and enough to shorten timeouts."""
REQUEST = f"GET /x HTTP/1.1\r\nhost: {SITE}\r\n\r\n".encode()
IDLE_SECONDS = 60
"""How long an idle connection lasts otherwise."""


@pytest.mark.parametrize("app", ["edge", "gateway", "survey"])
def test_memory_is_watched(mesh: Mesh, app: str) -> None:
    """
    Istio's agent adds the overload manager to the proxy's own limit of connections.
    """
    _, text = mesh.one(app).get(15000, "/config_dump?mask=bootstrap.overload_manager")

    assert {"envoy.overload_actions.reduce_timeouts"} <= set(re.findall(r'"(envoy\.[\w.]+)"', text))
    assert 1 == text.count('"max_active_downstream_connections"')
    assert 1 == text.count('"max_heap_size_bytes"')


def test_idle_connections_of_the_edge(mesh: Mesh) -> None:
    """
    Idle connections are closed within seconds once they take much of the edge's memory.
    """
    with crowd(mesh) as held:
        began = time.monotonic()
        assert eventually(lambda: still_open(held) < CROWD / 2)
        assert time.monotonic() - began < IDLE_SECONDS / 2


@contextmanager
def crowd(mesh: Mesh) -> Iterator[list[socket.socket]]:
    """Hold connections of one client, each of which requests something once."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    address = mesh.one("edge").address

    def connect(stack: ExitStack) -> list[socket.socket]:
        held = []
        for _ in range(CROWD):
            one = stack.enter_context(socket.create_connection((address, 80), 10))
            with suppress(ConnectionError):
                one.sendall(REQUEST)
            one.setblocking(False)
            held.append(one)
        return held

    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        yield inside(mesh.outside.namespace, lambda: connect(stack))


def still_open(held: list[socket.socket]) -> int:
    """Return how many connections the edge has not closed."""

    def is_open(one: socket.socket) -> bool:
        try:
            while one.recv(65536):
                pass
        except BlockingIOError:
            return True
        except ConnectionError:
            pass
        return False

    return sum(map(is_open, held))


def test_series_of_the_rules(mesh: Mesh) -> None:
    """
    After the relabeling of the PodMonitor, the proxies' series have the names in the rules and
    dashboards.
    """
    read = {*signals.schema()["foreign_metrics"]["envoy"]}
    endpoint = yaml.safe_load(POD_MONITOR.read_text())["spec"]["podMetricsEndpoints"][0]
    found = set()
    for app in ("edge", "gateway", "survey"):
        _, text = mesh.one(app).get(15090, "/stats/prometheus")
        for line in re.findall(r"(?m)^envoy_.+\}", text):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            labels["__name__"] = line.partition("{")[0]
            found.add(relabeled(labels, endpoint["metricRelabelings"])["__name__"])

    assert set() == read - found


def relabeled(labels: dict[str, str], rules: list[dict[str, Any]]) -> dict[str, str]:
    """Return *labels* after *rules*, all of which replace."""
    for rule in rules:
        assert rule["action"] == "replace"
        source = ";".join(labels.get(name, "") for name in rule["sourceLabels"])
        if match := re.fullmatch(rule["regex"], source):
            value = match.expand(re.sub(r"\$(\d)", r"\\\1", rule["replacement"]))
            labels = {**labels, rule["targetLabel"]: value}
    return labels
