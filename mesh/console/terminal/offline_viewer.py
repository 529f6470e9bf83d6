"""Opens an exported file in a separate console, on a copy without intake and eviction."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from mesh.console.app import console
from mesh.console.clock import steady
from mesh.console.settings import ConsoleSettings
from mesh.console.store import schema
from mesh.console.web.authentication import Access, read_token

FOR_EVER = timedelta(days=36_500)
NO_BOUND = 2**50


async def show(file: Path, listen: str, on_link: Callable[[str], None]) -> None:
    """
    Serve *file* on *listen* until cancelled, and pass the sign-in link to *on_link*.

    Raises:
        ListenError: The address cannot be bound.
        DatabaseError: The file cannot be opened, or is from another version.
    """
    with tempfile.TemporaryDirectory(prefix="amarre-import-") as folder:
        await asyncio.to_thread(schema.check_version, file)
        copy, token = Path(folder) / "console.sqlite", Path(folder) / "token"
        await asyncio.to_thread(shutil.copyfile, file, copy)
        settings = ConsoleSettings(
            console_listen=listen,
            # No telemetry is expected; any free port will do.
            console_otlp_grpc="127.0.0.1:0",
            console_otlp_http="127.0.0.1:0",
            console_database=copy,
            console_token_file=token,
            console_scrape=(),
            console_retention=FOR_EVER,
            console_points_retention=FOR_EVER,
            console_service_bytes=NO_BOUND,
        )
        access = Access(read_token("AMARRE_CONSOLE_TOKEN_FILE", token), steady())
        async with console(settings, access=access):
            on_link(f"http://{listen}/open?code={access.new_code()}")
            await asyncio.Event().wait()
