"""Typed stubs, one per service, and stubs on connections of their own for long streams."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import grpc

from gateway.config import GatewaySettings
from mesh.chassis.channel import channel
from mesh.contract import policy
from mesh.contract.policy import SERVICES, Method

STREAMS_PER_CONNECTION = 100
"""Streams of one HTTP/2 connection; servers of the mesh accept no more in direct mode."""


@dataclass(frozen=True)
class Clients:
    """Stubs of the services that the gateway calls."""

    channels: tuple[grpc.aio.Channel, ...]
    stubs: Mapping[str, Any]
    """The stub of each service, by its name."""
    watches: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Stubs for streams that stay open, by service, each on a connection of its own."""

    @classmethod
    def connect(cls, settings: GatewaySettings) -> "Clients":
        """
        Create channels to each service; connections are opened by the first call.

        Raises:
            SvidFilesError: The SVID of this process cannot be read.
            KeyError: ``AMARRE_PEERS`` lacks a service.
        """
        channels = {name: channel(name, settings) for name in SERVICES}
        # With some room, since streams are spread by count and end at any time.
        connections = settings.gateway_streams_total // STREAMS_PER_CONNECTION + 2
        watches = {
            name: tuple(channel(name, settings, own_connection=True) for _ in range(connections))
            for name in SERVICES
        }
        return cls(
            channels=(*channels.values(), *(one for some in watches.values() for one in some)),
            watches={
                name: tuple(_stub(name, one) for one in some) for name, some in watches.items()
            },
            stubs={name: _stub(name, one) for name, one in channels.items()},
        )

    def of(self, method: Method) -> Callable[..., Any]:
        """Return the stub method for *method*."""
        watches = self.watches.get(method.service)
        if method.stays_open and watches:
            return _Spread([getattr(stub, method.name) for stub in watches])
        found: Callable[..., Any] = getattr(self.stubs[method.service], method.name)
        return found

    async def close(self) -> None:
        """Close every channel."""
        for live in self.channels:
            await live.close()


def _stub(service: str, live: grpc.aio.Channel) -> Any:
    """Return the generated stub of *service*, so that a new contract needs no line here."""
    generated = import_module(f"amarre.{service}.v1.{service}_service_pb2_grpc")
    return getattr(generated, f"{policy.load().service(service).descriptor.name}Stub")(live)


class _Spread:
    """Opens each stream on the connection that carries the fewest."""

    def __init__(self, calls: list[Callable[..., Any]]) -> None:
        self._calls = calls
        self._open = [0] * len(calls)

    def __call__(self, request: Any, **options: Any) -> Any:
        least = self._open.index(min(self._open))
        opened = self._calls[least](request, **options)
        self._open[least] += 1
        opened.add_done_callback(lambda _: self._closed(least))
        return opened

    def _closed(self, index: int) -> None:
        self._open[index] -= 1
