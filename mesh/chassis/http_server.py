"""A uvicorn server for a process that handles signals itself."""

import asyncio
import contextlib
from collections.abc import Iterator

import uvicorn

from mesh.chassis import background

_DATE_SECONDS = 1.0


class HttpServer(uvicorn.Server):
    """Serves HTTP until `request_stop`.

    While idle it wakes up once a second, for the ``Date`` header; uvicorn does ten times.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do not handle signals; the process stops all its servers together."""
        yield

    async def main_loop(self) -> None:
        """Update the default headers until stopped; connections are served meanwhile."""
        await background.supervise("HTTP server", self._update)

    async def _update(self) -> None:
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DATE_SECONDS):
                    await self._stopping.wait()

    def request_stop(self) -> None:
        """Stop accepting connections and let requests finish within the graceful time-out."""
        self.should_exit = True
        self._stopping.set()
