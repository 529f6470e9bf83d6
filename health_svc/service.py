"""HealthService: protobuf in, domain call, protobuf out.

The interceptor has already identified the peer, applied the method's policy and validated the
request. Rules live in ``health_svc.probes`` and ``health_svc.status``.
"""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

from amarre.health.v1 import health_pb2 as pb
from amarre.health.v1 import health_service_pb2 as rpc
from amarre.health.v1 import health_service_pb2_grpc as rpc_grpc
from google.protobuf.timestamp_pb2 import Timestamp

from health_svc.errors import OfflineError
from health_svc.ports import Certificate
from health_svc.probe_limits import SharedProber
from health_svc.probes import DEFAULT_TIMEOUT, Probe
from health_svc.status import HEARTBEAT, Board, Part, State
from mesh.chassis import call
from mesh.chassis.interceptors.context import Context

PORT = 443
ANSWERING = timedelta(seconds=0.5)
"""Part of the deadline reserved for responding."""


class HealthService(rpc_grpc.HealthServiceServicer):
    """Serve ``amarre.health.v1.HealthService``."""

    def __init__(
        self, prober: SharedProber, board: Board, *, heartbeat: timedelta = HEARTBEAT
    ) -> None:
        self._prober = prober
        self._board = board
        self._heartbeat = heartbeat

    async def CheckHost(
        self, request: rpc.CheckHostRequest, context: Context
    ) -> rpc.CheckHostResponse:
        """Probe one host; a host that does not respond is an error that carries the probe."""
        timeout = DEFAULT_TIMEOUT
        if request.HasField("timeout_ms"):
            timeout = timedelta(milliseconds=request.timeout_ms)
        found = await self._prober.probe(
            call.user().id, request.host, PORT, timeout=timeout, within=_time_to_work()
        )
        probe = _probe(found)
        if not found.online:
            raise OfflineError("The host does not respond.", details=[probe], host=found.host)
        return rpc.CheckHostResponse(probe=probe)

    async def GetStatus(
        self, request: rpc.GetStatusRequest, context: Context
    ) -> rpc.GetStatusResponse:
        """Return the status of the mesh."""
        return rpc.GetStatusResponse(status=_status(await self._board.current()))

    async def WatchStatus(
        self, request: rpc.WatchStatusRequest, context: Context
    ) -> AsyncIterator[rpc.WatchStatusResponse]:
        """Stream the status; end without an error shortly before the deadline."""
        watched = self._board.watch(
            request.last_event_id, heartbeat=self._heartbeat, lasts=_time_to_work()
        )
        async for state in watched:
            if state is None:
                yield rpc.WatchStatusResponse()
            else:
                yield rpc.WatchStatusResponse(event_id=state.event_id, status=_status(state))


def _time_to_work() -> timedelta | None:
    left = call.remaining_seconds()
    return None if left is None else timedelta(seconds=left) - ANSWERING


def _probe(found: Probe) -> pb.HostProbe:
    return pb.HostProbe(
        online=found.online,
        host=found.host,
        port=found.port,
        timeout_ms=round(found.timeout.total_seconds() * 1000),
        tcp=pb.TcpProbe(**_present(found.tcp)),
        tls=_tls(found),
    )


def _tls(found: Probe) -> pb.TlsProbe:
    probe = pb.TlsProbe(authorized=found.tls.authorized, **_present(found.tls))
    handshake = found.tls.handshake
    if handshake is not None:
        probe.protocol = handshake.protocol
        if handshake.alpn is not None:
            probe.alpn_protocol = handshake.alpn
        probe.cert.CopyFrom(_certificate(handshake.certificate))
    return probe


def _present(step: Any) -> dict[str, Any]:
    """Return the fields common to both steps, without absent ones."""
    fields = {"ok": step.ok, "latency_ms": step.latency_ms, "error": step.error}
    return {name: value for name, value in fields.items() if value is not None}


def _certificate(certificate: Certificate) -> pb.CertificateSummary:
    return pb.CertificateSummary(
        subject_cn=certificate.subject_cn,
        issuer_cn=certificate.issuer_cn,
        valid_from_time=_timestamp(certificate.valid_from),
        valid_to_time=_timestamp(certificate.valid_to),
        fingerprint256=certificate.fingerprint256,
    )


def _status(state: State) -> pb.MeshStatus:
    return pb.MeshStatus(
        status=pb.HealthStatus.ValueType(state.condition),
        check_time=_timestamp(state.checked_at),
        uptime_seconds=round(state.uptime.total_seconds(), 3),
        services=[_part(part) for part in state.parts],
    )


def _part(part: Part) -> pb.PartStatus:
    return pb.PartStatus(
        name=part.name,
        status=pb.HealthStatus.ValueType(part.condition),
        message=part.message,
        latency_ms=part.latency_ms,
        last_check_time=_timestamp(part.checked_at),
    )


def _timestamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
