"""Checks of client certificates beyond those of TLS, from SPIFFE and good practice.

Source:
    SPIFFE X.509-SVID, sections 4 and 5; RFC 5280, section 4.2.1.9; NIST SP 800-57 (RSA 2048).
"""

import functools
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

E = TypeVar("E", bound=x509.ExtensionType)
LEAST_RSA_BITS = 2048
LEAST_EC_BITS = 256
_REMEMBERED = 1024


@functools.lru_cache(_REMEMBERED)
def is_acceptable(leaf: bytes, chain: bytes) -> bool:
    """Whether a client certificate may identify a workload; TLS has verified its signatures.

    Args:
        leaf: The certificate, PEM.
        chain: The verified chain that begins with the certificate, PEM; may be empty.
    """
    try:
        certificate = x509.load_pem_x509_certificate(leaf)
        issuers = x509.load_pem_x509_certificates(chain)[1:] if chain else []
        return (
            _is_leaf(certificate)
            and all(map(_is_strong, (certificate, *issuers)))
            and all(_allows(issuer, below) for below, issuer in enumerate(issuers))
        )
    except ValueError:
        return False


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


def _allows(issuer: x509.Certificate, below: int) -> bool:
    """Whether the path length of *issuer* allows *below* intermediates beneath it."""
    constraints = _extension(issuer, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        return False
    return constraints.path_length is None or below <= constraints.path_length


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
