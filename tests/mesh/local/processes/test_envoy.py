"""The Envoy program."""

import asyncio
import gc
import os
from pathlib import Path

import pytest

from mesh.local.processes import envoy


async def test_cancelled_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Ctrl-C while the mesh starts ends the validating Envoys, and leaves no traceback.

    Fails if the process is not awaited: it goes on, and its pipes are closed after the event loop.
    """
    program = tmp_path / "envoy"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    program.chmod(0o700)
    monkeypatch.setattr(envoy, "binary", lambda: program)
    validating = asyncio.create_task(envoy.validate(tmp_path))
    async with asyncio.timeout(10):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            await asyncio.sleep(0.01)
    validating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await validating

    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    gc.collect()
