"""Assemble and run a console: store, receivers, scraper and pages."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from mesh.chassis.background import background
from mesh.chassis.http_server import HttpServer
from mesh.console.clock import Now, steady
from mesh.console.context import Context
from mesh.console.incidents.alert_servers import Watch
from mesh.console.intake import otlp_receiver
from mesh.console.intake.clock_offset import ClockOffsets
from mesh.console.intake.otlp_decoder import Decoder
from mesh.console.intake.otlp_receiver import Receiver
from mesh.console.intake.scraper import Scraper
from mesh.console.queries import run_history
from mesh.console.settings import ConsoleSettings
from mesh.console.store.intake_counters import IntakeCounters
from mesh.console.store.reader import Reader
from mesh.console.store.writer import Writer
from mesh.console.web import server
from mesh.console.web.authentication import Access, read_token
from mesh.contract import policy

SUM_UP_SECONDS = 30.0
STOP_SECONDS = 3

log = structlog.get_logger("console")


class ListenError(Exception):
    """An address cannot be bound; the message names it and says what to do."""


@contextlib.asynccontextmanager
async def console(
    settings: ConsoleSettings, *, now: Now | None = None, access: Access | None = None
) -> AsyncIterator[Context]:
    """
    Run a console while the body runs.

    Raises:
        ListenError, DatabaseError, SecretFileError: A required resource is unavailable.
    """
    clock = now or steady()
    intake, clocks = IntakeCounters(clock), ClockOffsets(clock)
    access = access or Access(
        read_token("AMARRE_CONSOLE_TOKEN_FILE", settings.console_token_file), clock
    )
    async with contextlib.AsyncExitStack() as stack:
        sockets = {
            name: stack.enter_context(_bound(address, name))
            for name, address in (
                ("AMARRE_CONSOLE_LISTEN", settings.console_listen),
                ("AMARRE_CONSOLE_OTLP_HTTP", settings.console_otlp_http),
            )
        }
        writer = Writer(
            settings.console_database,
            now=clock,
            intake=intake,
            retention=settings.console_retention,
            points_retention=settings.console_points_retention,
            service_bytes=settings.console_service_bytes,
        )
        run = run_history.begin(writer.db, clock())
        stack.enter_context(writer)
        reader = Reader(Path(settings.console_database))
        stack.callback(reader.close)
        scraper = Scraper(
            settings.console_scrape,
            writer,
            now=clock,
            every=settings.console_scrape_every,
            file=settings.console_scrape_file,
        )
        watch = Watch(
            prometheus=settings.console_prometheus, alertmanager=settings.console_alertmanager
        )
        context = Context(
            mesh=policy.load(),
            writer=writer,
            reader=reader,
            intake=intake,
            now=clock,
            seen=scraper.seen,
            certs=settings.console_certs,
            watch=watch,
            clocks=clocks,
            control=settings.console_control,
        )
        await context.evaluator.resume(context)
        decoder = Decoder(clock, intake, settings.console_retention, clocks.observe)
        file = settings.console_otlp_token_file
        token = read_token("AMARRE_CONSOLE_OTLP_TOKEN_FILE", file) if file else ""
        otlp = Receiver(writer, intake, decoder, token=token)
        stack.callback(otlp.close)
        await stack.enter_async_context(_otlp_grpc(otlp, settings))
        apps = {
            otlp_receiver.http_app(otlp): sockets["AMARRE_CONSOLE_OTLP_HTTP"],
            server.app(context, access): sockets["AMARRE_CONSOLE_LISTEN"],
        }
        await stack.enter_async_context(_http(apps))
        stack.callback(context.stopping.set)
        for name, work in (
            ("metrics scraper", scraper.run),
            ("alert servers", watch.run),
            ("alert evaluation", partial(context.evaluator.run, context)),
            ("run history", partial(_sum_up, writer, run, clock)),
        ):
            await stack.enter_async_context(background(name, work))
        yield context


async def _sum_up(writer: Writer, run: int, now: Now) -> None:
    """Update the summary of this run until cancelled, and once more on the way out."""
    try:
        while True:
            await asyncio.sleep(SUM_UP_SECONDS)
            writer.do(lambda _, db: run_history.sum_up(db, run, now()))
    finally:
        writer.do(lambda _, db: run_history.sum_up(db, run, now()))


@contextlib.contextmanager
def _bound(address: str, variable: str) -> Iterator[socket.socket]:
    host, _, port = address.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host.strip("[]"), int(port)), family=family, backlog=128)
    except (OSError, ValueError, OverflowError) as exc:
        raise _cannot_listen(address, variable) from exc
    with listener:
        # Connections inherit it. Without it asyncio, unlike uvloop, leaves Nagle's algorithm on:
        # 40 ms more for each response on a connection that is kept.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


def _cannot_listen(address: str, variable: str) -> ListenError:
    return ListenError(
        f"Cannot listen on {address!r}: the port is in use or the address is not local. "
        f"Stop the other program or set {variable} to another HOST:PORT."
    )


@contextlib.asynccontextmanager
async def _otlp_grpc(receiver: Receiver, settings: ConsoleSettings) -> AsyncIterator[None]:
    address = settings.console_otlp_grpc
    try:
        server = otlp_receiver.grpc_server(receiver, address)
    except RuntimeError as exc:
        raise _cannot_listen(address, "AMARRE_CONSOLE_OTLP_GRPC") from exc
    await server.start()
    try:
        yield
    finally:
        await server.stop(1)


@contextlib.asynccontextmanager
async def _http(apps: Mapping[Any, socket.socket]) -> AsyncIterator[None]:
    servers = {HttpServer(_config(app)): listener for app, listener in apps.items()}
    serving = [
        asyncio.create_task(server.serve(sockets=[listener]))
        for server, listener in servers.items()
    ]
    try:
        yield
    finally:
        for server in servers:
            server.request_stop()
        await asyncio.gather(*serving)


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        limit_concurrency=200,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
