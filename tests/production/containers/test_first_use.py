"""The stack as the commands of its how-to page leave it."""

import json
import ssl
from typing import Any

import httpx

from tests.integration.researcher import Researcher, whole_way
from tests.production.containers.researchers import is_served
from tests.production.containers.stack import Stack


def test_healthy(stack: Stack) -> None:
    """
    `up --wait` leaves every container running and healthy.
    """
    assert {} == stack.unwell()
    assert {"gateway", "survey", "auth", "health", "redcap", "outbox"} <= set(stack.containers())


def test_whole_way(ready: dict[str, Any]) -> None:
    """
    A researcher completes the whole flow over HTTPS: sign-up, mail, request, survey, opinions, PDF.
    """
    whole_way(ready, "emmy.noether@example.org")


def test_redirect(trusted: ssl.SSLContext) -> None:
    """
    HTTP redirects to HTTPS and keeps path and query; health checks get a direct response.
    """
    with httpx.Client(verify=trusted, trust_env=False) as client:
        found = client.get("http://localhost/login?next=%2F")
        assert (308, "https://localhost/login?next=%2F") == (
            found.status_code,
            found.headers["location"],
        )
        assert 200 == client.get("http://localhost/healthz").status_code
        assert 200 == client.get("https://localhost/healthz").status_code


def test_lines(stack: Stack, ada: Researcher) -> None:
    """
    Every line of our images is one JSON object with time, level and event.
    """
    assert is_served(ada)
    for name, one in stack.ours().items():
        # Not `docker compose logs`, which adds control characters of its own.
        for line in stack.run(["docker", "logs", one["Id"]], check=False).splitlines():
            assert line.startswith("{"), (name, line)
            assert {"level", "event"} <= set(json.loads(line)), (name, line)
