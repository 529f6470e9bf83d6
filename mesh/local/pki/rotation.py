"""
New certificates under load: leaves in one step, the root in three.

A root is replaced in three steps, each of which everybody takes before the next begins: both
roots are trusted, leaves come from the new one, the old one is dropped. In any other order some
workload meets a certificate that it does not trust yet.
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
"""Waits until everybody uses the leaf and the roots that are installed."""


@dataclass(frozen=True)
class Installed:
    """What a workload shows and trusts, as serial numbers in hexadecimal digits."""

    leaf: str
    roots: frozenset[str]

    @classmethod
    def read(cls, folder: Path) -> "Installed":
        """Return what stands in the SVID folder of a workload."""
        leaf = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
        roots = x509.load_pem_x509_certificates((folder / "ca.crt").read_bytes())
        return cls(
            f"{leaf.serial_number:x}", frozenset(f"{root.serial_number:x}" for root in roots)
        )


async def rotate(layout: DataFolder, *, root: bool, settled: Settled, progress: Progress) -> None:
    """
    Renew every leaf, and the root too when *root*.

    Raises:
        CaError: The authority cannot be used.
    """
    old = CertificateAuthority.load_or_create(layout.ca)
    if not root:
        _issue_leaves(old, layout.certs, old.pem())
        await settled()
        progress("Every certificate is new.")
        return
    new = CertificateAuthority.create()
    both = old.pem() + new.pem()
    _trust(layout.certs, both)
    await settled()
    progress("1 of 3: both roots are trusted.")
    new.save(layout.ca)
    _issue_leaves(new, layout.certs, both)
    await settled()
    progress("2 of 3: every certificate comes from the new root.")
    _trust(layout.certs, new.pem())
    await settled()
    progress("3 of 3: the old root is dropped.")


def _issue_leaves(authority: CertificateAuthority, certs: Path, bundle: bytes) -> None:
    for name in sorted(WORKLOADS):
        install(authority.issue_svid(name), certs / name, bundle)
    edge = authority.issue(uris=[], names=["localhost"], common_name="AMARRE edge")
    install(edge, certs / EDGE, bundle)


def _trust(certs: Path, bundle: bytes) -> None:
    """Keep every leaf and replace the roots beside it."""
    for name in (*sorted(WORKLOADS), EDGE):
        folder = certs / name
        chain, key = (folder / "tls.crt").read_bytes(), (folder / "tls.key").read_bytes()
        install(Issued(chain, key, bundle), folder)
