"""Start the console: ``python -m mesh.console``."""

import asyncio
import signal

import structlog
import uvloop

from mesh.chassis import config
from mesh.chassis.credentials.secret_files import SecretFileError
from mesh.chassis.telemetry.logs import configure_logs
from mesh.console.app import ListenError, console
from mesh.console.settings import ConsoleSettings
from mesh.console.store.schema import DatabaseError

log = structlog.get_logger("console")


async def main(settings: ConsoleSettings) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with console(settings):
        log.info("serving", listen=settings.console_listen, otlp=settings.console_otlp_grpc)
        await stop.wait()
        log.info("stopping")
    log.info("stopped")


if __name__ == "__main__":
    found = config.load_or_exit(ConsoleSettings)
    configure_logs("console", "console", found.log_level)
    try:
        uvloop.run(main(found))
    except (ListenError, DatabaseError, SecretFileError) as fault:
        log.error("cannot start", message=str(fault))  # noqa: TRY400 - a sentence, no traceback
        raise SystemExit(2) from fault
