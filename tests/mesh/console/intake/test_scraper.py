"""Targets that do not respond are scraped again soon."""

import asyncio
from datetime import timedelta
from unittest.mock import Mock

import httpx
import pytest

from mesh.console.intake import scraper
from mesh.console.intake.scraper import Scraper
from mesh.console.settings import Target


async def test_a_process_that_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is not ready at the first round is seen before the next one."""
    faults = [httpx.ConnectError("refused")]

    async def fetch(*_: object, **__: object) -> str:
        if faults:
            raise faults.pop()
        return "# EOF\n"

    monkeypatch.setattr(scraper, "fetch", fetch)
    monkeypatch.setattr(scraper, "RETRY_SECONDS", 0.01)
    target = Target(process="auth", url="http://127.0.0.1:1/metrics")
    scrape = Scraper([target], Mock(), now=lambda: 0, every=timedelta(hours=1))
    running = asyncio.create_task(scrape.run())
    try:
        async with asyncio.timeout(5):
            while not scrape.seen[0].read_before:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()

    assert not scrape.seen[0].fault
