"""Fixtures that isolate the tests of the chassis."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _log_configuration() -> Iterator[None]:
    """Restore the global logging configuration, so that later tests can read log lines."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
