"""Identities and addresses of workloads in several namespaces."""

import pytest

from mesh.chassis.channel import _is_host_name
from mesh.chassis.config import MeshSettings
from mesh.chassis.errors import PermissionDeniedError
from mesh.chassis.identity import SpiffeId
from mesh.chassis.interceptors.peer import identify

SETTINGS = MeshSettings(transport="sidecar", namespace="app", namespaces={"auth": "identities"})


def caller(uri: str) -> SpiffeId:
    """Return the caller if the sidecar forwards the certificate of *uri* in a header."""
    metadata = (("x-forwarded-client-cert", f"By=spiffe://x;Hash=0;URI={uri}"),)
    return identify(SETTINGS)(None, metadata)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("ns/app/sa/gateway", id="home"),
        pytest.param("ns/identities/sa/auth", id="other"),
    ],
)
def test_right_namespace(path: str) -> None:
    """Each workload is accepted from the namespace in the settings."""
    found = caller(f"spiffe://amarre.local/{path}")

    assert f"spiffe://amarre.local/{path}" == str(found)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("ns/identities/sa/gateway", id="namespace of another workload"),
        pytest.param("ns/app/sa/auth", id="home namespace, but it has another"),
        pytest.param("ns/amarre/sa/gateway", id="unknown namespace"),
    ],
)
def test_wrong_namespace(path: str) -> None:
    """A service account of the right name in the wrong namespace is another identity."""
    with pytest.raises(PermissionDeniedError):
        caller(f"spiffe://amarre.local/{path}")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("survey.amarre-surveys.svc.cluster.local:3001", True),
        ("unix:/run/amarre.d/out.sock", False),
        ("127.0.0.1:3001", False),
        ("ipv4:127.0.0.1:3001,127.0.0.1:3070", False),
        ("localhost:3001", False),
    ],
)
def test_host_name(target: str, expected: bool) -> None:
    """Only a host name is an authority that an injected sidecar can route."""
    assert expected is _is_host_name(target)
