"""One definition of what both sides of a connection must agree on."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gateway.server import middleware
from gateway.sessions import cookies
from mesh.chassis import channel, server
from mesh.chassis.interceptors import pipeline
from mesh.contract import wire
from mesh.render.envoy import edge, routes

ROOT = Path(__file__).parents[3]
PRODUCT = ("auth_svc", "gateway", "health_svc", "mesh", "survey_svc")
NAMES = [wire.CANARY_HEADER, wire.SESSION_COOKIE, *wire.REFLECTION]


@functools.cache
def strings() -> tuple[tuple[Path, str], ...]:
    """Return every string in the code of the product."""
    return tuple(_strings())


def _strings() -> Iterator[tuple[Path, str]]:
    for package in PRODUCT:
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield path, node.value


@pytest.mark.parametrize("name", NAMES)
def test_defined_once(name: str) -> None:
    """
    No other file of the product repeats a name.
    """
    found = {str(path.relative_to(ROOT)) for path, text in strings() if text.strip("/") == name}

    assert {"mesh/contract/wire.py"} == found


def test_both_sides() -> None:
    """
    Proxies and processes read the same header, cookie, limits and services.
    """
    readers = {
        "CANARY_HEADER": (routes, edge, channel, pipeline, middleware),
        "BODY_BYTES": (edge, middleware),
        "MESSAGE_BYTES": (channel, server),
        "SESSION_COOKIE": (edge, cookies),
    }
    for name, modules in readers.items():
        for module in modules:
            assert vars(module)[name] is vars(wire)[name], module
    rendered = (ROOT / "mesh/envoy/gateway-envoy/envoy.yaml").read_text()
    assert f"max_request_bytes: {wire.BODY_BYTES}" in yaml.dump(yaml.safe_load(rendered))
