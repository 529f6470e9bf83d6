"""The local certificate authority: X.509-SVIDs for workloads, a plain certificate for the edge.

It binds each service's DNS name to exactly one identity and never puts a hostname in a common
name, because gRPC clients verify names and fall back to the common name.
"""

import datetime as dt
import ipaddress
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.contract.faults import WORKLOADS
from mesh.local import files

TRUST_DOMAIN = "amarre.local"
NAMESPACE = "amarre"
SVID_LIFETIME = dt.timedelta(hours=24)
ROOT_LIFETIME = dt.timedelta(days=3650)
BACKDATED = dt.timedelta(minutes=1)
"""How far validity is backdated, to tolerate clock skew."""


class CaError(Exception):
    """The authority cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Issued:
    """A certificate chain, its key and the trust bundle, as PEM."""

    chain: bytes
    key: bytes
    bundle: bytes

    def files(self) -> dict[str, bytes]:
        """Return the contents of an SVID folder."""
        return {"tls.crt": self.chain, "tls.key": self.key, "ca.crt": self.bundle}


class CertificateAuthority:
    """A root key and its certificate; issues leaves directly."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def create(
        cls, trust_domain: str = TRUST_DOMAIN, lifetime: dt.timedelta = ROOT_LIFETIME
    ) -> "CertificateAuthority":
        """Create a new root for *trust_domain*."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"AMARRE root {time.time_ns()}")])
        now = _now()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(key_usage(signs=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]
                ),
                critical=False,
            )
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load_or_create(cls, folder: Path) -> "CertificateAuthority":
        """Return the authority stored in *folder*; create one if there is none.

        Raises:
            CaError: It is damaged or has expired.
        """
        certificate, key = folder / "root.crt", folder / "root.key"
        if not certificate.exists() and not key.exists():
            authority = cls.create()
            authority.save(folder)
            return authority
        try:
            loaded_key = load_pem_private_key(key.read_bytes(), None)
            loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
        except (OSError, ValueError) as exc:
            raise CaError(
                f"The local CA in {folder} cannot be read ({exc}). Remove the folder; the next "
                "start creates a new one."
            ) from exc
        if not isinstance(loaded_key, ec.EllipticCurvePrivateKey):
            raise CaError(
                f"The local CA in {folder} has a key that is not an elliptic-curve key. Remove "
                "the folder."
            )
        if loaded.public_key() != loaded_key.public_key():
            raise CaError(
                f"The certificate and the key of the local CA in {folder} do not match, for "
                "example because the disk was full. Remove that folder; the next start creates a "
                "new one."
            )
        if loaded.not_valid_after_utc <= _now():
            raise CaError(
                f"The local CA in {folder} expired on {loaded.not_valid_after_utc:%Y-%m-%d}. "
                "Remove that folder; the next start creates a new one."
            )
        return cls(loaded, loaded_key)

    def save(self, folder: Path) -> None:
        """Store the authority in *folder*; only the current user can read it."""
        files.write_all(
            {
                folder / "root.key": _key_pem(self._key).decode(),
                folder / "root.crt": self.pem().decode(),
            }
        )

    def pem(self) -> bytes:
        """Return the root certificate as PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    def issue_svid(self, name: str, *, lifetime: dt.timedelta = SVID_LIFETIME) -> Issued:
        """Issue the X.509-SVID of the workload *name*.

        Source:
            SPIFFE X509-SVID, sections 2 to 4.
        """
        return self.issue(
            uris=[f"spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{name}"],
            names=[f"{name}.{TRUST_DOMAIN}", "localhost"],
            common_name=f"{name} workload",
            lifetime=lifetime,
        )

    def issue(
        self,
        *,
        uris: Sequence[str],
        names: Sequence[str],
        common_name: str,
        lifetime: dt.timedelta = SVID_LIFETIME,
        not_before: dt.datetime | None = None,
    ) -> Issued:
        """Issue a leaf with these URI and DNS names and the address 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        start = not_before or _now() - BACKDATED
        alternatives: list[x509.GeneralName] = [x509.UniformResourceIdentifier(u) for u in uris]
        alternatives += [x509.DNSName(name) for name in names]
        alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + BACKDATED + lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(signs=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Issued(leaf.public_bytes(Encoding.PEM), _key_pem(key), self.pem())


def install(issued: Issued, folder: Path, bundle: bytes | None = None) -> None:
    """Install an SVID in *folder* atomically.

    The files are reached through the symbolic link ``..data``, which is replaced: readers see
    either the old or the new set, never a mixture. *bundle* replaces the trust bundle.

    Raises:
        OSError: They cannot be written; the old set remains.
    """
    contents = issued.files() | ({"ca.crt": bundle} if bundle else {})
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    version = folder / f"..{time.time_ns()}"
    version.mkdir(mode=0o700)
    try:
        for name, data in contents.items():
            _write_private(version / name, data)
            link = folder / name
            if not link.is_symlink():
                link.symlink_to(f"..data/{name}")
        swap(folder, version.name)
    except BaseException:
        shutil.rmtree(version, ignore_errors=True)
        raise


def swap(folder: Path, version: str) -> None:
    """Make *version* current and remove all others except the previous one."""
    data = folder / "..data"
    previous = data.readlink().name if data.is_symlink() else ""
    # May be left over from a killed run.
    (folder / "..data_tmp").unlink(missing_ok=True)
    (folder / "..data_tmp").symlink_to(version)
    (folder / "..data_tmp").replace(data)
    for old in folder.glob("..[0-9]*"):
        if old.name not in {version, previous}:
            shutil.rmtree(old)


def issue_all(authority: CertificateAuthority, folder: Path) -> None:
    """Install an SVID for every workload without a usable one, or with one past half its lifetime.

    Raises:
        OSError: They cannot be written.
    """
    for name in sorted(WORKLOADS):
        if not _still_fresh(folder / name, authority):
            install(authority.issue_svid(name), folder / name)
    if not _still_fresh(folder / "edge", authority):
        edge = authority.issue(uris=[], names=["localhost"], common_name="AMARRE edge")
        install(edge, folder / "edge")


@dataclass(frozen=True)
class Summary:
    """Human-readable summary of a certificate."""

    name: str
    identity: str
    not_after: dt.datetime
    serial: str


def show(folder: Path) -> list[Summary]:
    """Return a summary of each certificate installed below *folder*."""
    found = []
    for path in sorted(folder.glob("*/tls.crt")):
        leaf = x509.load_pem_x509_certificate(path.read_bytes())
        found.append(
            Summary(
                name=path.parent.name,
                identity=", ".join(_uris(leaf)) or "localhost",
                not_after=leaf.not_valid_after_utc,
                serial=f"{leaf.serial_number:x}",
            )
        )
    return found


def _still_fresh(folder: Path, authority: CertificateAuthority) -> bool:
    try:
        leaf = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
        leaf.verify_directly_issued_by(authority.certificate)
        key = load_pem_private_key((folder / "tls.key").read_bytes(), None)
        # During a root rotation, the bundle has two roots.
        roots = x509.load_pem_x509_certificates((folder / "ca.crt").read_bytes())
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    return (
        leaf.public_key() == key.public_key()
        and authority.certificate in roots
        and leaf.not_valid_after_utc - _now() > SVID_LIFETIME / 2
    )


def _uris(leaf: x509.Certificate) -> list[str]:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return list(names.get_values_for_type(x509.UniformResourceIdentifier))


def key_usage(*, signs: bool) -> x509.KeyUsage:
    """Return the key usage of a CA that *signs* certificates, or of a leaf."""
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
