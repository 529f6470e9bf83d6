"""Modules import only what their extra installs."""

import tomllib

import pytest

from tests.import_rules import ROOT, Extras, check_extras

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def extras() -> Extras:
    """The extras of the project, with the modules of each."""
    return Extras(SETTINGS, SETTINGS["tool"]["amarre"]["extras"])


def test_tree() -> None:
    """Every module belongs to an extra and imports only what that provides."""
    assert check_extras() == []


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("mesh.chassis.channel", "import structlog", "structlog, which"),
        ("mesh.chassis.channel", "from mesh.chassis import server", "which services installs"),
        ("mesh.contract.model", "try:\n    import httpx\nexcept ImportError:\n    pass", "httpx"),
        ("mesh.chassis.telemetry.otlp", "import sqlalchemy", "sqlalchemy, which services"),
        (
            "mesh.chassis.telemetry.otlp",
            "from opentelemetry.instrumentation import asgi",
            "nothing installs",
        ),
        ("sandbox.outbox.web", "from redis import asyncio", "redis.asyncio, which services"),
        ("gateway.app", "import click", "click, which local installs"),
        ("gateway.app", "from mesh.local import runner", "which local installs"),
        ("elsewhere.module", "import os", "belongs to no extra"),
    ],
)
def test_missing(extras: Extras, module: str, source: str, fault: str) -> None:
    """An import that a smaller installation lacks is reported in one message with both names."""
    (sentence,) = extras.faults(module, source)
    assert module in sentence
    assert fault in sentence


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mesh.chassis.channel", "import json, grpc\nfrom google.rpc import status_pb2"),
        ("mesh.chassis.telemetry.otlp", "from opentelemetry.sdk.trace import TracerProvider"),
        ("mesh.chassis.telemetry.clients", "def watch():\n    from sqlalchemy import event"),
        ("gateway.app", "import structlog, starlette\nfrom mesh.chassis import errors, server"),
        ("mesh.cli", "import click, structlog, lark"),
        (
            "mesh.contract.model",
            "import typing\nif typing.TYPE_CHECKING:\n    import httpx",
        ),
    ],
)
def test_allowed(extras: Extras, module: str, source: str) -> None:
    """Dependencies of the extra, direct or through another extra, may be imported."""
    assert list(extras.faults(module, source)) == []
