"""A fresh bed for each test; all tests need the real Envoy."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sidecars.support.bed import Bed, bed

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.envoy)


@pytest.fixture(name="bed")
async def fresh_bed() -> AsyncIterator[Bed]:
    """A bed without running processes."""
    async with bed() as made:
        yield made
