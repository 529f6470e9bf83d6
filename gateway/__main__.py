"""Entry point of the gateway: settings, channels, application, listeners, graceful shutdown."""

import asyncio

import structlog

from gateway.app import build
from gateway.clients import Clients
from gateway.config import GatewaySettings
from gateway.server.listeners import ConnectionLimits, Listener
from mesh.chassis import config, server
from mesh.chassis.background import background

log = structlog.get_logger("server")


async def main(settings: GatewaySettings) -> None:
    """Serve until SIGTERM or SIGINT, then end streams and drain requests.

    Raises:
        StartError, SettingsError: A setting is invalid; the message names it.
        ListenError: An address cannot be bound.
        SvidFilesError: The SVID cannot be read.
    """
    clients = Clients.connect(settings)
    gateway = build(settings, clients)
    connections = ConnectionLimits(
        per_client=settings.gateway_connections_per_client,
        total=settings.gateway_connections_total,
    )
    listeners = [
        Listener(
            gateway.app,
            address,
            tls_dir=tls_dir,
            drain_timeout=settings.drain_timeout,
            behind_envoy=settings.behind_envoy,
            connections=connections,
        )
        for address, tls_dir in (
            (settings.gateway_http_listen, None),
            (settings.gateway_https_listen, settings.gateway_tls_dir),
        )
        if address
    ]
    if not listeners:
        raise server.StartError(
            "AMARRE_GATEWAY_HTTP_LISTEN is empty; set it to HOST:PORT or unix:PATH."
        )
    async with (
        background("admission samples", gateway.admission.sample),
        background("revoked sessions", gateway.follow_revocations),
    ):
        for listener in listeners:
            await listener.start()
        log.info("serving", http=settings.gateway_http_listen, https=settings.gateway_https_listen)
        await server.until_stop_signal()
    log.info("draining")
    gateway.api.stopping.set()
    await asyncio.gather(*(listener.stop() for listener in listeners))
    await clients.close()
    log.info("stopped")


if __name__ == "__main__":
    loaded = config.load_or_exit(GatewaySettings)
    server.run(lambda: main(loaded), "gateway", loaded)
