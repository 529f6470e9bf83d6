"""Certificate rotation under load: leaves in one phase, the root in three.

A root is replaced in three phases: trust both roots, issue leaves from the new root, drop the old
root. Each phase starts after every workload has completed the previous one; otherwise a workload
would receive a certificate that it does not trust yet.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from mesh.contract.faults import WORKLOADS
from mesh.control import Progress
from mesh.local.data_folder import DataFolder
from mesh.local.pki.certificate_authority import CertificateAuthority, Issued, install

EDGE = "edge"
Settled = Callable[[], Awaitable[None]]
"""Waits until every workload uses the installed leaf and roots."""


@dataclass(frozen=True)
class Installed:
    """The leaf that a workload presents and the roots that it trusts, as hexadecimal serials."""

    leaf: str
    roots: frozenset[str]

    @classmethod
    def read(cls, folder: Path) -> "Installed":
        """Return the content of a workload's SVID folder."""
        leaf = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
        roots = x509.load_pem_x509_certificates((folder / "ca.crt").read_bytes())
        return cls(
            f"{leaf.serial_number:x}", frozenset(f"{root.serial_number:x}" for root in roots)
        )


async def rotate(
    data_folder: DataFolder, *, root: bool, settled: Settled, progress: Progress
) -> None:
    """Renew every leaf, and also the root if *root* is set.

    Raises:
        CaError: The authority cannot be used.
    """
    old = CertificateAuthority.load_or_create(data_folder.ca)
    if not root:
        _issue_leaves(old, data_folder.certs, old.pem())
        await settled()
        progress("Every certificate was renewed.")
        return
    new = CertificateAuthority.create()
    both = old.pem() + new.pem()
    _trust(data_folder.certs, both)
    await settled()
    progress("Phase 1 of 3: every workload trusts both roots.")
    new.save(data_folder.ca)
    _issue_leaves(new, data_folder.certs, both)
    await settled()
    progress("Phase 2 of 3: every certificate is issued by the new root.")
    _trust(data_folder.certs, new.pem())
    await settled()
    progress("Phase 3 of 3: the old root is no longer trusted.")


def _issue_leaves(authority: CertificateAuthority, certs: Path, bundle: bytes) -> None:
    for name in sorted(WORKLOADS):
        install(authority.issue_svid(name), certs / name, bundle)
    edge = authority.issue(uris=[], names=["localhost"], common_name="AMARRE edge")
    install(edge, certs / EDGE, bundle)


def _trust(certs: Path, bundle: bytes) -> None:
    """Keep every leaf and replace its trusted roots."""
    for name in (*sorted(WORKLOADS), EDGE):
        folder = certs / name
        chain, key = (folder / "tls.crt").read_bytes(), (folder / "tls.key").read_bytes()
        install(Issued(chain, key, bundle), folder)
