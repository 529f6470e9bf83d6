"""Real Envoys on what istiod sends, and the four services behind them."""

import pytest

from tests.production.cluster.control_plane import eventually
from tests.production.cluster.running_mesh import ADA, DEPLOYED, OPERATOR, SITE, Mesh, made, request

REFUSED = {"PERMISSION_DENIED", "UNAUTHENTICATED"}
BY_PROXY = ("rbac_access_denied", "jwt_authn_access_denied")


@pytest.mark.parametrize("caller", ["gateway", "auth", "survey", "health"])
def test_callers(mesh: Mesh, caller: str) -> None:
    """
    Every method, with every kind of token, is open to those whom the contract names only; proxies
    refuse the others, no process. Where a caller has no business at all, nothing leads there.
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
            line["caller"] == identity and line["details"].startswith(BY_PROXY)
            for callee in ("auth", "survey", "health")
            for line in mesh.one(callee).access_log()
            if line["details"]
        )

    assert [] == wrong
    assert 0 < refused
    assert eventually(lambda: by_proxies() == refused), (by_proxies(), refused)


def test_plain_text(mesh: Mesh) -> None:
    """
    Who has no certificate is not let in, whatever it calls.
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
    A researcher goes the whole way over HTTPS: edge, gateway, services, REDCap and mail.
    """
    said = mesh.outside.python("tests.integration.researcher", str(mesh.ready()))

    assert "went the whole way" in said


def test_http_leads_to_https(mesh: Mesh) -> None:
    """
    What comes to port 80 is sent to HTTPS.
    """
    shown = ("-o", "/dev/null", "-w", "%{http_code} %{redirect_url}")

    assert f"301 https://{SITE}/x" == mesh.outside.run("curl", "-sS", *shown, f"http://{SITE}/x")
