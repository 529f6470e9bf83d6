"""Entry point of health_svc: settings -> adapters -> service -> serve()."""

from amarre.health.v1 import health_service_pb2_grpc as rpc

from health_svc import health_checks
from health_svc.config import HealthSettings
from health_svc.ports import Check
from health_svc.probe_limits import SharedProber
from health_svc.probes import Prober
from health_svc.service import HealthService
from health_svc.sockets import Sockets
from health_svc.status import Board
from mesh.chassis import config, server
from mesh.chassis.channel import channel

NAME = "health"


async def main(settings: HealthSettings) -> None:
    """Serve until stopped."""
    channels = {name: channel(name, settings) for name in settings.peers if name != NAME}
    async with health_checks.http_client() as client:
        checks: dict[str, Check] = {
            name: health_checks.service(live) for name, live in channels.items()
        }
        checks |= {
            name: health_checks.backend(client, url)
            for name, url in settings.health_backends.items()
        }
        prober = Prober(
            Sockets(), settings.health_allowed_hosts, allow_private=settings.health_allow_private
        )
        shared = SharedProber(
            prober,
            per_user=settings.health_probes_per_user,
            total=settings.health_probes_total,
        )
        servicer = HealthService(shared, Board(checks))
        await server.serve(
            NAME, settings, lambda to: rpc.add_HealthServiceServicer_to_server(servicer, to)
        )
        for live in channels.values():
            await live.close()


if __name__ == "__main__":
    found = config.load_or_exit(HealthSettings)
    server.run(lambda: main(found), NAME, found)
