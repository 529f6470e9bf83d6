"""Checks of workload certificates beyond those of TLS, from SPIFFE and good practice.

Servers apply them to the certificates of their clients, and to their own before they present it.
Clients cannot: gRPC does not show them the certificate of the server (ADR 14).

Source:
    SPIFFE X.509-SVID, sections 4 and 5; RFC 5280, section 4.2.1.9; NIST SP 800-57 (RSA 2048).
"""

import functools
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from mesh.chassis.credentials.tls import SvidFilesError

E = TypeVar("E", bound=x509.ExtensionType)
LEAST_RSA_BITS = 2048
LEAST_EC_BITS = 256
_REMEMBERED = 1024


@functools.lru_cache(_REMEMBERED)
def is_acceptable(leaf: bytes, chain: bytes) -> bool:
    """Whether a certificate may identify a workload; TLS verifies its signatures.

    The mesh's root has path length 0, so it issues workload certificates only. TLS libraries do
    not apply the path length of a root, hence the check here and the depth in Envoy's files.

    Args:
        leaf: The certificate, PEM.
        chain: The chain as presented, PEM; may be empty. gRPC leaves the certificate out of it,
            Envoy does not.
    """
    try:
        certificate = x509.load_pem_x509_certificate(leaf)
        presented = x509.load_pem_x509_certificates(chain) if chain else []
        issuers = [each for each in presented if each != certificate]
        return (
            _is_leaf(certificate)
            and all(map(_is_strong, (certificate, *issuers)))
            and all(issuer.subject == issuer.issuer for issuer in issuers)
        )
    except ValueError:
        return False


def check_own(chain: bytes) -> None:
    """
    Check the certificate that a server is about to present.

    Raises:
        SvidFilesError: A client would be refused with it.
    """
    if not is_acceptable(chain, chain):
        raise SvidFilesError(
            "AMARRE_SVID_DIR: the certificate in tls.crt must not be used by a workload: it is a "
            "CA certificate, may sign, has an RSA key below 2048 bits, or was issued by a CA below "
            "the root. Issue another one, for example with `amarre certs issue`."
        )


def _is_leaf(certificate: x509.Certificate) -> bool:
    """Whether a certificate neither is a CA nor may sign others."""
    constraints = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    return not (constraints and constraints.ca) and not (
        usage and (usage.key_cert_sign or usage.crl_sign)
    )


def _is_strong(certificate: x509.Certificate) -> bool:
    match certificate.public_key():
        case RSAPublicKey() as key:
            return key.key_size >= LEAST_RSA_BITS
        case EllipticCurvePublicKey() as key:
            return key.key_size >= LEAST_EC_BITS
        case key:
            return isinstance(key, Ed25519PublicKey)


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
