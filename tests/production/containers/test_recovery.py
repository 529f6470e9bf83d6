"""Killed processes, an unavailable dependency, a restarted engine, a new certificate."""

import os
import ssl
from collections.abc import Iterable

import pytest

from tests.integration.researcher import Researcher
from tests.production.containers.researchers import is_served
from tests.production.containers.stack import Stack, until

SERVING = ("survey", "auth", "gateway", "gateway-envoy", "survey-envoy", "postgres", "redis")
"""Containers on the path of a researcher's request."""


def kill(stack: Stack, names: Iterable[str]) -> None:
    """Kill the processes of containers, and wait until the engine has started them again."""
    found = stack.containers()
    before = {name: found[name] for name in names}
    for one in before.values():
        os.kill(one["State"]["Pid"], 9)

    def restarted() -> bool:
        now = stack.containers()
        return all(now[name]["RestartCount"] > one["RestartCount"] for name, one in before.items())

    until(f"the restart of {', '.join(before)}", restarted)


@pytest.mark.parametrize("name", SERVING)
def test_killed(stack: Stack, ada: Researcher, name: str) -> None:
    """
    A killed process is restarted, and the researcher continues with the same session.
    """
    kill(stack, [name])

    until("an answer", lambda: is_served(ada))


def test_others_killed(stack: Stack, ada: Researcher) -> None:
    """
    So are those of all other containers, killed at once.
    """
    others = {n for n, one in stack.containers().items() if one["State"]["Running"]} - {*SERVING}
    assert {"authority", "health", "health-envoy", "auth-envoy", "prometheus"} <= others

    kill(stack, others)

    until("an answer", lambda: is_served(ada))


def test_healthy_again(stack: Stack) -> None:
    """
    After all these restarts, every container is healthy.
    """
    until("health", lambda: {} == stack.unwell())


def test_unavailable_dependency(stack: Stack, ada: Researcher) -> None:
    """
    While REDCap is unavailable, every health check passes: they are for liveness.
    """
    stack.compose("stop", "--timeout", "1", "redcap")
    try:
        until("an error", lambda: not is_served(ada))
        for name, command in stack.health_checks().items():
            if name != "redcap":
                stack.compose("exec", "-T", name, *command)
    finally:
        stack.compose("start", "redcap")
    until("an answer", lambda: is_served(ada))


def test_engine_restarted(stack: Stack, ada: Researcher) -> None:
    """
    After a restart of the engine, every container starts automatically, without another `up`.
    """
    stack.engine("restart")

    until("health", lambda: {} == stack.unwell(), 180)
    until("an answer", lambda: is_served(ada))


def test_new_certificate(stack: Stack) -> None:
    """
    A new certificate of the edge is served without a restart, with the command of the page.
    """
    before = stack.containers()["gateway-envoy"]["State"]["StartedAt"]
    old = ssl.get_server_certificate(("localhost", 443))
    for file in ("tls.crt", "tls.key"):
        (stack.folder / "secrets/edge" / file).unlink()

    stack.line("python3 ../compose_secrets.py --sandbox")

    until("the new certificate", lambda: ssl.get_server_certificate(("localhost", 443)) != old)
    assert before == stack.containers()["gateway-envoy"]["State"]["StartedAt"]
