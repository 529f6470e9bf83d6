"""
``python -m mesh.deploy.authority run|check CA CERTS``: the certificates of Compose's proxies.

On Kubernetes istiod does this. ``run`` issues an SVID for every workload and looks again every
hour whether one is past half its life; ``check`` says whether all are there.
"""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import structlog

from mesh.chassis import telemetry
from mesh.chassis.server import until_told_to_stop
from mesh.contract.faults import WORKLOADS
from mesh.local import ca

log = structlog.get_logger("authority")

HOUR_SECONDS = 3600.0
FILES = ("tls.crt", "tls.key", "ca.crt")


async def keep_issuing(authority: Path, certs: Path, *, every: float = HOUR_SECONDS) -> None:
    """
    Issue what is missing or old, again and again, until told to stop.

    Raises:
        CaError: The authority in its folder is damaged or has expired.
    """
    stop = asyncio.create_task(until_told_to_stop())
    while not stop.done():
        ca.issue_all(ca.CertificateAuthority.load_or_create(authority), certs)
        log.info("issued", identities=len(WORKLOADS))
        await asyncio.wait([stop], timeout=every)


def missing(certs: Path) -> list[str]:
    """Return the workloads that have no certificate yet."""
    return sorted(
        name for name in WORKLOADS if not all((certs / name / file).is_file() for file in FILES)
    )


def main(arguments: list[str]) -> int:
    """Do what *arguments* say; returns the exit status."""
    kinds: Mapping[str, int] = {"run": 3, "check": 3}
    if not arguments or len(arguments) != kinds.get(arguments[0]):
        sys.stderr.write("python -m mesh.deploy.authority run|check CA_FOLDER CERTS_FOLDER\n")
        return 2
    action, authority, certs = arguments[0], Path(arguments[1]), Path(arguments[2])
    if action == "check":
        return 1 if missing(certs) else 0
    telemetry.configure_logs("authority", "authority", "INFO")
    try:
        asyncio.run(keep_issuing(authority, certs))
    except (ca.CaError, OSError) as fault:
        log.error("cannot issue", message=str(fault))  # noqa: TRY400 - a sentence, no traceback
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
