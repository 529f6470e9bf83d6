"""
``python -m mesh.deploy.authority run CA CERTS``: issue the certificates of Compose's proxies.

On Kubernetes, istiod does this. It issues an SVID for every workload, and renews it every hour once
it is past half its lifetime.
"""

import asyncio
import sys
from pathlib import Path

import structlog

from mesh.chassis import telemetry
from mesh.chassis.server import until_stop_signal
from mesh.contract.faults import WORKLOADS
from mesh.local.pki import certificate_authority

log = structlog.get_logger("authority")

HOUR_SECONDS = 3600.0


async def keep_issuing(authority: Path, certs: Path, *, every: float = HOUR_SECONDS) -> None:
    """
    Issue missing and old certificates, every hour, until cancelled.

    Raises:
        CaError: The authority is damaged or has expired.
    """
    stop = asyncio.create_task(until_stop_signal())
    while not stop.done():
        certificate_authority.issue_all(
            certificate_authority.CertificateAuthority.load_or_create(authority), certs
        )
        log.info("certificates issued", identities=len(WORKLOADS))
        await asyncio.wait([stop], timeout=every)


def main(arguments: list[str]) -> int:
    """Issue certificates until stopped; return the exit status."""
    if len(arguments) != 3 or arguments[0] != "run":
        sys.stderr.write("python -m mesh.deploy.authority run CA_FOLDER CERTS_FOLDER\n")
        return 2
    authority, certs = Path(arguments[1]), Path(arguments[2])
    telemetry.configure_logs("authority", "authority", "INFO")
    try:
        asyncio.run(keep_issuing(authority, certs))
    except (certificate_authority.CaError, OSError) as fault:
        log.error("certificates not issued", message=str(fault))  # noqa: TRY400 - a sentence, no traceback
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
