"""A process that emits telemetry without serving, for the tests of logs and OTLP."""

import asyncio
import logging
import sys

import structlog
from amarre.auth.v1 import auth_service_pb2 as pb

from mesh.chassis import config, server, telemetry
from mesh.chassis.config import MeshSettings
from mesh.chassis.telemetry import tracing

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
log = structlog.get_logger("test")


async def main() -> None:
    """Write one line of each kind, create one span, measure one call."""
    tracing.resume(TRACEPARENT)
    log.info("session opened", link_age_s=3)
    log.info("call", kind="access", email="ada@example.org", note="from ada@example.org to me")
    log.info("asked", request=pb.SignUpRequest(email="ada@example.org", language="en"))
    try:
        raise RuntimeError("grace@example.org is unknown")
    except RuntimeError:
        log.exception("handler failed")
    logging.getLogger("a.library").warning("it mentions ada@example.org")
    for _ in range(3):
        logging.getLogger("opentelemetry.exporter").warning("away")
    seconds = telemetry.RPC_SECONDS.labels("survey", "GetLink", "OK", "")
    seconds.observe(0.2, telemetry.exemplar())
    with tracing.client("told", {}):
        await asyncio.sleep(0)
    sys.stdout.flush()


if __name__ == "__main__":
    server.run(main, "survey", config.load_or_exit(MeshSettings))
