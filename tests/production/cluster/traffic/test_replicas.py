"""Two replicas behind istiod's configuration: weights, ejection, new certificates, termination."""

import copy
import json
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from typing import Any
from uuid import uuid4

import pytest

from tests.background import in_background
from tests.production.cluster.control_plane import Resource, eventually
from tests.production.cluster.traffic.pod import Pod
from tests.production.cluster.traffic.running_mesh import ADA, DEPLOYED, Mesh, made, request

SERVICE = "survey"
READ = DEPLOYED.mesh.method("survey.ListRequests")
WRITE = DEPLOYED.mesh.method("survey.CreateRequest")
"""Proxies never try it again; it answers an empty request with FAILED_PRECONDITION."""
ANSWERS = {"OK", "FAILED_PRECONDITION"}
WATCH = DEPLOYED.mesh.method("survey.WatchRequests")
STREAMS, STREAM_SECONDS = 8, 20.0
LEAST_CALLS = 50
LOG_READS = 8
"""Proxies write a line up to a second after its call; the log is read four times a second."""
RENEW_SECONDS = 20.0
"""How old tokens get, which live for a minute."""
VERSION = "rollouts-pod-template-hash"
"""The label by which Argo Rollouts tells the versions apart."""
WEIGHT, CALLS = 25, 400
SPREAD = 0.1
"""Of 400 calls of which a quarter is to go to one place, the share strays by less."""
_WORKLOAD = DEPLOYED.workload(SERVICE)
_CALLEE = rf"cluster.outbound\|{_WORKLOAD.port}\|%s\|{SERVICE}\..*%s$"


@pytest.fixture(scope="module")
def two(mesh: Mesh) -> Iterator[Mesh]:
    """The mesh with two replicas of a service; a test may leave one."""
    mesh.scale(SERVICE, 2)
    assert eventually(lambda: serving(mesh) == 2)
    yield mesh
    for pod in mesh.pods[SERVICE][1:]:
        mesh.drain(pod)


def serving(mesh: Mesh, subset: str = "stable") -> int:
    """Return the number of replicas that the gateway's proxy uses."""
    return mesh.one("gateway").counter(_CALLEE % (subset, "membership_healthy"))


def streams(mesh: Mesh, pod: Pod) -> int:
    """Return the number of streams that the gateway's proxy has open at *pod*."""
    _, text = mesh.one("gateway").get(15000, "/clusters")
    replica = rf"\|streams\|{SERVICE}\..*::{re.escape(pod.address)}:\d+::rq_active::(\d+)"
    return sum(map(int, re.findall(replica, text)))


@contextmanager
def load(mesh: Mesh) -> Iterator[dict[str, int]]:
    """Call read and write in turn while the body runs; the yielded counter has the outcomes."""
    gateway = mesh.one("gateway")
    name = mesh.folder / f"load-{uuid4().hex}"
    source, stop = name.with_suffix(".json"), name.with_suffix(".stop")

    def write() -> list[dict[str, Any]]:
        calls = mesh.requests([READ, WRITE])
        name.write_text(json.dumps(calls))
        name.replace(source)
        return calls

    def renew(done: Event) -> None:
        while not done.wait(RENEW_SECONDS):
            write()

    sent = _CALLEE % ("stable", "upstream_rq_total")
    before = gateway.counter(sent)
    ends: dict[str, int] = {}
    files = {"source": str(source), "until": str(stop)}
    with ThreadPoolExecutor(1) as pool, in_background(renew):
        running = pool.submit(made, gateway.place, write(), **files)
        try:
            assert eventually(lambda: gateway.counter(sent) > before, running.done)
            yield ends
        finally:
            stop.touch()
        ends |= running.result()
    assert sum(ends.values()) > LEAST_CALLS


def failed(ends: dict[str, int]) -> dict[str, int]:
    """Return the outcomes that are not responses of the service."""
    return {end: count for end, count in ends.items() if end.partition(":")[0] not in ANSWERS}


def served(pod: Pod) -> int:
    """Return the number of READ calls that *pod* has logged."""
    return sum(line["path"] == READ.path for line in pod.access_log() if "caller" in line)


def served_before(replicas: list[Pod]) -> list[int]:
    """Return the number of READ calls that each replica has logged, once it is stable."""
    seen: list[list[int]] = []

    def is_level() -> bool:
        seen.append([served(pod) for pod in replicas])
        return len(seen) > LOG_READS and seen[-1] == seen[-LOG_READS]

    assert eventually(is_level)
    return seen[-1]


def shares(mesh: Mesh, **options: object) -> list[float]:
    """Return the share of calls that each replica serves."""
    replicas = mesh.pods[SERVICE]
    before = served_before(replicas)
    calls = mesh.requests([READ] * CALLS, **options)
    found = made(mesh.one("gateway").place, calls, at_once=8)
    assert {"OK"} == {got["code"] for got in found}

    def counts() -> list[int]:
        return [served(pod) - old for pod, old in zip(replicas, before, strict=True)]

    assert eventually(lambda: sum(counts()) == CALLS), counts()
    return [count / CALLS for count in counts()]


@contextmanager
def changed(mesh: Mesh, installed: list[Resource], kind: str) -> Iterator[Resource]:
    """
    Yield a copy of the service's resource of *kind* to change and apply; it is reset afterwards.
    """
    (original,) = [r for r in installed if (r["kind"], r["metadata"]["name"]) == (kind, SERVICE)]
    try:
        yield copy.deepcopy(original)
    finally:
        mesh.cluster.apply([original])


def test_canary(two: Mesh, installed: list[Resource]) -> None:
    """
    A canary gets its weight of the calls, and every call that requests it.
    """
    gateway = two.one("gateway")
    with (
        changed(two, installed, "DestinationRule") as rule,
        changed(two, installed, "VirtualService") as routes,
    ):
        # As Argo Rollouts does.
        for pod, version in zip(two.pods[SERVICE], ("stable", "canary"), strict=True):
            label = f"{VERSION}={version}"
            two.cluster.kubectl("-n", pod.namespace, "label", "pod", pod.name, label)
            (subset,) = [s for s in rule["spec"]["subsets"] if s["name"] == version]
            subset["labels"][VERSION] = version
        for route in routes["spec"]["http"]:
            if len(route["route"]) > 1:
                route["route"][0]["weight"] = 100 - WEIGHT
                route["route"][1]["weight"] = WEIGHT
        two.cluster.apply([routes, rule])
        assert eventually(lambda: [1, 1] == [serving(two, s) for s in ("stable", "canary")])
        config = "/config_dump?resource=dynamic_route_configs"
        assert eventually(lambda: f'"weight": {WEIGHT}' in gateway.get(15000, config)[1])
        _, by_weight = shares(two)
        by_header = shares(two, canary=True)

    assert WEIGHT / 100 == pytest.approx(by_weight, abs=SPREAD)
    assert [0, 1] == by_header
    assert eventually(lambda: serving(two) == 2)


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_ejection(two: Mesh, fault: signal.Signals) -> None:
    """
    Callers eject a replica whose process has exited or hangs, and use it again afterwards.
    """
    healthy, failing = two.pods[SERVICE]
    failing.place.signal("process", fault)
    try:
        assert eventually(lambda: serving(two) == 1)
        with load(two) as alone:
            time.sleep(5)
    finally:
        if fault == signal.SIGKILL:
            two.start_process(failing)
        else:
            failing.place.signal("process", signal.SIGCONT)
    assert eventually(lambda: serving(two) == 2)

    assert {} == failed(alone)
    assert 0 < min(shares(two))
    assert healthy.process_is_ready()


def test_new_certificates(two: Mesh, installed: list[Resource]) -> None:
    """
    Proxies get new certificates and use them for new connections, without a failed call.
    """
    proxies = [two.one("gateway"), *two.pods[SERVICE]]
    with changed(two, installed, "DestinationRule") as rule:
        # So that every certificate opens connections while calls are made.
        rule["spec"]["trafficPolicy"]["connectionPool"]["tcp"]["maxConnectionDuration"] = "2s"
        two.cluster.apply([rule])
        before = [pod.serials() for pod in proxies]
        with load(two) as ends:
            renewed = eventually(
                lambda: (
                    not any(old & pod.serials() for pod, old in zip(proxies, before, strict=True))
                )
            )
            time.sleep(5)

    assert renewed
    assert {} == failed(ends)


def test_drained(two: Mesh) -> None:
    """
    Terminating a pod, as when draining a node, fails no calls, and its streams end without an
    error.
    """
    _, leaving = two.pods[SERVICE]
    # One user may have five streams at a replica.
    tokens = [two.token(SERVICE, "gateway", replace(ADA, id=f"ada-{n}")) for n in range(STREAMS)]
    watches = [request(WATCH, token, first=False, timeout=STREAM_SECONDS) for token in tokens]
    with ThreadPoolExecutor(1) as pool:
        with load(two) as ends:
            watched = pool.submit(made, two.one("gateway").place, watches, at_once=STREAMS)
            assert eventually(lambda: streams(two, leaving) > 0, watched.done)
            time.sleep(2)
            two.drain(leaving)
            time.sleep(2)
        codes = {got["code"] for got in watched.result()}

    assert {} == failed(ends)
    # Those of the other replica last until their caller's deadline.
    assert {"OK", "DEADLINE_EXCEEDED"} == codes
    assert 1 == serving(two)
