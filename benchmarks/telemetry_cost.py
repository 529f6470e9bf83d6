"""Cost of telemetry per call: CPU time of client and server together, in microseconds.

    python -m benchmarks.telemetry_cost [--calls 500] [--rounds 8] [--json FILE]

One method over mTLS in this process, with an exporter whose collector is absent: no call sampled,
5 % and all of them. The cases alternate, so that other work on the machine affects them alike.
"""

import argparse
import asyncio
import json
import os
import secrets
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from amarre.health.v1 import health_service_pb2 as pb
from amarre.health.v1 import health_service_pb2_grpc as rpc

from mesh.chassis.telemetry import logs, otlp, tracing
from mesh.chassis.testing import connected, free_port, served
from mesh.local.pki.certificate_authority import CertificateAuthority, issue_all

SHARES = {"no exporter": 0, "0 %": 0, "5 %": 20, "100 %": 1}
"""One in this many calls is sampled; 0 means none."""


class Health(rpc.HealthServiceServicer):
    """Responds at once."""

    async def GetStatus(  # noqa: N802 - the name in the contract
        self, request: Any, context: Any
    ) -> pb.GetStatusResponse:
        return pb.GetStatusResponse()


def register(server: Any) -> None:
    """Register the service."""
    rpc.add_HealthServiceServicer_to_server(
        Health(),
        server,
    )


async def cpu_us(stub: Any, calls: int, every: int) -> float:
    """Return the CPU time of one call, in microseconds, when one call in *every* is sampled."""
    contexts = [
        f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-0{int(every > 0 and n % every == 0)}"
        for n in range(calls)
    ]
    started = time.process_time()
    for context in contexts:
        tracing.resume(context)
        await stub.GetStatus(pb.GetStatusRequest())
    return (time.process_time() - started) / calls * 1e6


async def measure(calls: int, rounds: int) -> dict[str, list[float]]:
    """Return the times of each round, in microseconds per call, by case."""
    found: dict[str, list[float]] = {name: [] for name in SHARES}
    with tempfile.TemporaryDirectory() as folder:
        issue_all(CertificateAuthority.create(), Path(folder))
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
        os.environ["OTEL_METRICS_EXPORTER"] = "none"
        os.environ["OTEL_LOGS_EXPORTER"] = "none"
        otlp.start("health", "health", "development")
        tracer = tracing.used()
        async with (
            served(register, Path(folder) / "health") as port,
            connected("health", port, Path(folder) / "gateway", rpc.HealthServiceStub) as stub,
        ):
            await cpu_us(stub, calls, 1)
            for _ in range(rounds):
                for name, every in SHARES.items():
                    tracing.use(None if name == "no exporter" else tracer)
                    found[name].append(await cpu_us(stub, calls, every))
        otlp.stop()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path, help="Also write every round to this file.")
    arguments = parser.parse_args()
    logs.configure_logs("health", "health", "ERROR")
    found = asyncio.run(measure(arguments.calls, arguments.rounds))
    # The minimum is the cost of an undisturbed call.
    base = min(found["no exporter"])
    for name, times in found.items():
        print(
            f"{name:>12}: {min(times):6.0f} µs a call ({min(times) - base:+.0f}),"
            f" median {statistics.median(times):.0f} of {len(times)} rounds"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
