"""Certificates and keys of the control plane, valid for two days."""

import base64
import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.local.pki.certificate_authority import key_usage

LIFE = datetime.timedelta(days=2)
_LEAVES = {
    "server": ("kube-apiserver", "", ("localhost", "kubernetes.default.svc")),
    "admin": ("admin", "system:masters", ("admin",)),
    "edge": ("edge", "", ("dev.amarre.example.org",)),
    "istiod": ("istiod", "", ("localhost", "istiod.istio-system.svc")),
}


def write(folder: Path) -> None:
    """Write an authority, the leaf certificates, and the key of service accounts to *folder*."""
    folder.mkdir()
    authority = _key()
    root = _certificate("ca", "", authority, authority, "ca", None)
    _store(folder / "ca.key", authority)
    (folder / "ca.crt").write_bytes(_pem(root))
    for file in _LEAVES:
        renew(folder, file)
    accounts = _key()
    _store(folder / "accounts.key", accounts)
    (folder / "accounts.pub").write_bytes(
        accounts.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def renew(folder: Path, file: str) -> None:
    """Write a new key and certificate of the leaf *file*, issued by the authority in *folder*."""
    authority = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(authority, rsa.RSAPrivateKey)
    name, organization, hosts = _LEAVES[file]
    key = _key()
    _store(folder / f"{file}.key", key)
    leaf = _certificate(name, organization, key, authority, "ca", hosts)
    (folder / f"{file}.crt").write_bytes(_pem(leaf))


def kubeconfig(folder: Path, port: int) -> dict[str, object]:
    """Return the configuration of kubectl for the administrator."""
    pki = folder / "pki"
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": f"{pki}/ca.crt"}
    user = {"client-certificate": f"{pki}/admin.crt", "client-key": f"{pki}/admin.key"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "admin", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
    }


def base64_of(file: Path) -> str:
    """Return the content of *file* in Base64."""
    return base64.b64encode(file.read_bytes()).decode()


def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _store(path: Path, key: rsa.RSAPrivateKey) -> None:
    path.touch(0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _certificate(
    name: str,
    organization: str,
    key: rsa.RSAPrivateKey,
    issuer: rsa.RSAPrivateKey,
    issuer_name: str,
    hosts: tuple[str, ...] | None,
) -> x509.Certificate:
    """Return a certificate for *key*; an authority if *hosts* is None."""
    now = datetime.datetime.now(datetime.UTC)
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if organization:
        subject.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer_name)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFE)
        .add_extension(x509.BasicConstraints(ca=hosts is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False
        )
        .add_extension(key_usage(signs=hosts is None), critical=True)
    )
    if hosts is not None:
        names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
        names += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ("127.0.0.1", "10.96.0.1")]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(issuer, hashes.SHA256())
