"""Background tasks of the console: a failing one is restarted and shown."""

import asyncio
from typing import Any

import pytest

from mesh.console.incidents.alert_servers import Watch
from mesh.console.incidents.evaluator import Evaluator
from mesh.console.intake.scraper import Scraper
from tests.mesh.console.conftest import Start


@pytest.mark.parametrize(
    ("task", "method", "name"),
    [
        (Scraper, "once", "metrics scraper"),
        (Watch, "run", "alert servers"),
        (Evaluator, "_once", "alert evaluation"),
    ],
    ids=["scraper", "alert servers", "evaluation"],
)
async def test_restarted(
    start: Start, monkeypatch: pytest.MonkeyPatch, task: type, method: str, name: str
) -> None:
    """
    A failed task is restarted, and the overview shows it until then; serving continues.
    """
    original: Any = getattr(task, method)
    failures = [ZeroDivisionError() for _ in range(2)]
    returned = asyncio.Event()

    async def fail_twice(*arguments: Any, **named: Any) -> Any:
        if failures:
            raise failures.pop()
        returned.set()
        return await original(*arguments, **named)

    monkeypatch.setattr(task, method, fail_twice)
    async with start() as running:
        async with asyncio.timeout(30):
            while name not in (await running.get("overview"))["failingTasks"]:
                await asyncio.sleep(0.02)
            await returned.wait()
            while (await running.get("overview"))["failingTasks"]:
                await asyncio.sleep(0.1)
