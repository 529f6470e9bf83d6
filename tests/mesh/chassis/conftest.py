"""What every test of the chassis leaves as it was."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _log_configuration() -> Iterator[None]:
    """Restore the configuration of logs, which is global, so that later tests can read them."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
