"""
A bad release of Survey: ``python -m tests.production.telemetry.defective_survey``.

It fails every list, blocks its event loop, and burns a processor.
"""

import asyncio
import hashlib
import os
import runpy
import time
from contextlib import suppress
from threading import Thread
from typing import Any, Never

from survey_svc.service import SurveyService

BLOCKED_SECONDS, FREE_SECONDS = 0.7, 0.05
URGENT = -20
"""The priority, if permitted: others that use the processors would hide the fault."""


async def broken(self: SurveyService, request: Any, context: Any) -> Never:
    """Fail, and see to it that the event loop is blocked."""
    global _blocking
    if _blocking is None:
        _blocking = asyncio.create_task(_block())
    raise RuntimeError("broken")


async def _block() -> None:
    while True:
        time.sleep(BLOCKED_SECONDS)
        await asyncio.sleep(FREE_SECONDS)


def _burn() -> None:
    data = bytes(1 << 24)
    while True:
        hashlib.sha256(data)  # Without the interpreter's lock.


_blocking: asyncio.Task[None] | None = None

if __name__ == "__main__":
    with suppress(PermissionError):
        os.nice(URGENT)
    Thread(target=_burn, daemon=True).start()
    SurveyService.ListRequests = broken  # type: ignore[method-assign]
    runpy.run_module("survey_svc", run_name="__main__")
