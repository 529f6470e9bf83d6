"""Real Envoys with the configuration from istiod, and the four services behind them."""

import json
import re
import socket
import ssl
import time

import pytest
from cryptography import x509

from mesh.render.envoy import overload
from tests.production.cluster.conftest import renew_edge
from tests.production.cluster.control_plane import eventually
from tests.production.cluster.traffic.running_mesh import (
    ADA,
    DEPLOYED,
    OPERATOR,
    SITE,
    Mesh,
    made,
    request,
)
from tests.production.namespaces import inside

REFUSED = {"PERMISSION_DENIED", "UNAUTHENTICATED"}
BY_PROXY = ("rbac_access_denied", "jwt_authn_access_denied")


@pytest.mark.parametrize("caller", ["gateway", "auth", "survey", "health"])
def test_callers(mesh: Mesh, caller: str) -> None:
    """
    Every method, with every kind of token, is accessible only to the callers in the contract; all
    others are rejected by proxies, not processes, and have no route if they have no permission at
    all.
    """
    calls, expected = [], []
    for method in DEPLOYED.mesh:
        if method.service == caller:
            continue
        may = method.allows(caller)
        without = may and not method.needs_session
        right = OPERATOR if method.roles else ADA
        kinds = {
            "user": (mesh.token(method.service, caller, right), may),
            "nobody": ("", without),
            "other audience": (mesh.token("other", caller), without),
            "expired": (mesh.token(method.service, caller, age=4000), without),
        }
        if method.roles:
            kinds["no role"] = (mesh.token(method.service, caller), False)
        nowhere = caller not in {w.name for w in DEPLOYED.callers(method.service)}
        for kind, (token, wanted) in kinds.items():
            calls.append(request(method, token, timeout=3.0))
            codes = {"UNAVAILABLE"} if nowhere else REFUSED
            expected.append((method.name, kind, wanted, codes))
    found = made(mesh.one(caller).place, calls, at_once=8)
    wrong = [
        (name, kind, got)
        for (name, kind, wanted, codes), got in zip(expected, found, strict=True)
        if (got["code"] in REFUSED | {"UNAVAILABLE"} if wanted else got["code"] not in codes)
    ]
    refused = sum(got["code"] in REFUSED for got in found)

    def by_proxies() -> int:
        identity = DEPLOYED.workload(caller).spiffe_id
        return sum(
            line["caller"] == identity
            and line["details"].startswith(BY_PROXY)
            and line["level"] == "warning"
            for callee in ("auth", "survey", "health")
            for pod in mesh.pods[callee]
            for line in pod.access_log()
            if line["details"]
        )

    assert [] == wrong
    assert 0 < refused
    assert eventually(lambda: by_proxies() == refused), (by_proxies(), refused)


def test_plain_text(mesh: Mesh) -> None:
    """
    A caller without a certificate is rejected, whatever it calls.
    """
    token = mesh.token("survey", "gateway")
    calls = [
        request(method, token, host=f"{mesh.one(callee.name).address}:{callee.port}")
        for method in DEPLOYED.mesh
        for callee in [DEPLOYED.workload(method.service)]
    ]
    found = made(mesh.outside, calls, at_once=8)

    assert {"UNAVAILABLE"} == {got["code"] for got in found}


def test_researcher(mesh: Mesh) -> None:
    """
    A researcher completes the whole flow over HTTPS: edge, gateway, services, REDCap and mail.
    """
    said = mesh.outside.python("tests.integration.researcher", str(mesh.ready()))

    assert "went the whole way" in said


def test_http_leads_to_https(mesh: Mesh) -> None:
    """
    Requests to port 80 are redirected to HTTPS.
    """
    shown = ("-o", "/dev/null", "-w", "%{http_code} %{redirect_url}")

    assert f"301 https://{SITE}/x" == mesh.outside.run("curl", "-sS", *shown, f"http://{SITE}/x")


def https(mesh: Mesh) -> tuple[int, bytes]:
    """Check the health of the edge over HTTPS; return also the serial number of its certificate."""
    edge = mesh.one("edge").address

    def ask() -> tuple[int, bytes]:
        trusted = ssl.create_default_context(cafile=str(mesh.cluster.folder / "pki/ca.crt"))
        with (
            socket.create_connection((edge, 443), 5) as plain,
            trusted.wrap_socket(plain, server_hostname=SITE) as secure,
        ):
            secure.sendall(f"GET /healthz HTTP/1.1\r\nhost: {SITE}\r\n\r\n".encode())
            shown = secure.getpeercert(binary_form=True)
            assert shown is not None
            return x509.load_der_x509_certificate(shown).serial_number, secure.recv(12)

    return inside(mesh.outside.namespace, ask)


def test_new_certificate_of_the_edge(mesh: Mesh) -> None:
    """
    The edge presents a new certificate without a restart and without a failed request.
    """
    old, _ = https(mesh)
    answers = set()

    def is_new() -> bool:
        serial, answer = https(mesh)
        answers.add(answer)
        return serial != old

    renew_edge(mesh.cluster)

    assert eventually(is_new)
    assert {b"HTTP/1.1 200"} == answers


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("-H", f"x-large: {'x' * 20_000}"), 431),
        (("-X", "POST", "-d", "x" * 70_000), 413),
        (("-H", "with_underscore: x"), 400),
    ],
    ids=["headers", "body", "underscore"],
)
def test_limits_of_the_edge(mesh: Mesh, options: tuple[str, ...], status: int) -> None:
    """
    The edge rejects requests above its limits, in JSON.
    """
    # Over HTTP/2, Envoy resets the stream instead.
    shown = ("-sS", "--http1.1", "-w", "\n%{http_code}")
    trusted = ("--cacert", str(mesh.cluster.folder / "pki/ca.crt"))
    said = mesh.outside.run(
        "curl", *shown, *trusted, *options, f"https://{SITE}/api/v1/health/status"
    )
    body, _, code = said.rpartition("\n")

    assert str(status) == code
    assert {"data", "error"} == set(json.loads(body))


def test_connections_of_the_edge(mesh: Mesh) -> None:
    """
    The edge accepts as many connections as its memory suffices for; Istio's default has no limit.
    """
    _, text = mesh.one("edge").get(15000, "/config_dump?mask=bootstrap.overload_manager")

    limits = re.findall(r'"max_active_downstream_connections": "(\d+)"', text)
    assert [str(overload.EDGE.connections)] == limits


def test_forged_headers(mesh: Mesh) -> None:
    """
    Clients cannot decide about traces, canaries or the time of arrival of their request: the
    gateway rejects requests that waited too long.
    """
    gateway = mesh.one("gateway")
    trace = "0af7651916cd43dd8448eb211c80319c"
    early = int((time.time() - 30) * 1000)
    forged = (f"traceparent: 00-{trace}-b7ad6b7169203331-01", "x-canary: 1")
    headers = (*forged, f"x-amarre-start: {early}")
    shown = ("-sS", "-i", "--cacert", str(mesh.cluster.folder / "pki/ca.crt"))

    def asked(subset: str) -> int:
        return gateway.counter(rf"cluster.outbound\|\d+\|{subset}\|health\..*upstream_rq_total$")

    stable, canary = asked("stable"), asked("canary")
    options = [option for header in headers for option in ("-H", header)]
    said = mesh.outside.run("curl", *shown, *options, f"https://{SITE}/api/v1/health/status")

    assert "traceresponse: 00-" in said
    assert trace not in said
    assert (1, 0) == (asked("stable") - stable, asked("canary") - canary), said
