"""What an instance waits for before it is ready."""

from types import SimpleNamespace
from typing import Any

import pytest

from mesh.contract import policy
from mesh.local.processes.fleet import verifies_tokens


def service(name: str, *, session: bool) -> Any:
    """A service whose only rpc requires a session, or not."""
    return SimpleNamespace(name=name, methods=[SimpleNamespace(needs_session=session)])


@pytest.mark.parametrize(("workload", "expected"), [("plain", False), ("signed", True)])
def test_key_set_is_awaited_only_where_tokens_are_verified(
    monkeypatch: pytest.MonkeyPatch, workload: str, expected: bool
) -> None:
    """
    The Envoy of a service without an rpc that requires a session never fetches the keys of Auth, so
    nothing waits for them; any other Envoy is ready only once it has them.
    """
    services = [service("plain", session=False), service("signed", session=True)]
    monkeypatch.setattr(policy, "load", lambda: SimpleNamespace(services=services))
    proxy: Any = SimpleNamespace(key_set="unix:/run/keys.sock", workload=workload)

    assert expected == verifies_tokens(proxy)
