"""
New certificates under load: leaves in one step, the root in three.

A root is replaced in three steps, each of which everybody takes before the next begins: both
roots are trusted, leaves come from the new one, the old one is dropped. In any other order some
workload meets a certificate that it does not trust yet.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

from cryptography import x509

from mesh.contract.faults import WORKLOADS
from mesh.local.ca import CertificateAuthority, Issued, install
from mesh.local.layout import Layout
from mesh.orders import Tell

EDGE = "edge"
Settled = Callable[[Mapping[str, str]], Awaitable[None]]
"""Waits until every proxy uses the leaves with these serial numbers, by workload."""


async def rotate(layout: Layout, *, root: bool, settled: Settled, tell: Tell) -> None:
    """
    Renew every leaf, and the root too when *root*.

    Raises:
        CaError: The authority cannot be used.
    """
    old = CertificateAuthority.load_or_create(layout.ca)
    if not root:
        await settled(_issue_leaves(old, layout.certs, old.pem()))
        tell("Every certificate is new.")
        return
    new = CertificateAuthority.create()
    both = old.pem() + new.pem()
    await settled(_trust(layout.certs, both))
    tell("1 of 3: both roots are trusted.")
    new.save(layout.ca)
    await settled(_issue_leaves(new, layout.certs, both))
    tell("2 of 3: every certificate comes from the new root.")
    await settled(_trust(layout.certs, new.pem()))
    tell("3 of 3: the old root is dropped.")


def _issue_leaves(authority: CertificateAuthority, certs: Path, bundle: bytes) -> dict[str, str]:
    for name in sorted(WORKLOADS):
        install(authority.issue_svid(name), certs / name, bundle)
    edge = authority.issue(uris=[], names=["localhost"], common_name="AMARRE edge")
    install(edge, certs / EDGE, bundle)
    return dict(_serials(certs))


def _trust(certs: Path, bundle: bytes) -> dict[str, str]:
    """Keep every leaf and replace the roots beside it."""
    for name in (*sorted(WORKLOADS), EDGE):
        folder = certs / name
        chain, key = (folder / "tls.crt").read_bytes(), (folder / "tls.key").read_bytes()
        install(Issued(chain, key, bundle), folder)
    return dict(_serials(certs))


def _serials(certs: Path) -> Iterator[tuple[str, str]]:
    for name in (*sorted(WORKLOADS), EDGE):
        leaf = x509.load_pem_x509_certificate((certs / name / "tls.crt").read_bytes())
        yield name, f"{leaf.serial_number:x}"
