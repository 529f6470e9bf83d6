"""The local certificate authority."""

import datetime as dt
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from mesh.local.pki import certificate_authority
from mesh.local.pki.certificate_authority import CaError, CertificateAuthority
from tests.mesh.local.conftest import fill


def leaf(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())


def test_svid(authority: CertificateAuthority, tmp_path: Path) -> None:
    """
    An SVID has one URI, the DNS names of our channels and ordinary clients, and no host name as CN.
    """
    certificate_authority.install(authority.issue_svid("survey"), tmp_path)

    certificate = leaf(tmp_path)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert ["spiffe://amarre.local/ns/amarre/sa/survey"] == names.get_values_for_type(
        x509.UniformResourceIdentifier
    )
    assert ["survey.amarre.local", "localhost"] == names.get_values_for_type(x509.DNSName)
    assert ["127.0.0.1"] == [str(ip) for ip in names.get_values_for_type(x509.IPAddress)]
    common_name = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    assert "." not in str(common_name)
    lifetime = certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)
    assert dt.timedelta(hours=23, minutes=59) < lifetime <= dt.timedelta(hours=24)


def test_keys_are_private(authority: CertificateAuthority, tmp_path: Path) -> None:
    """Only the current user can read the keys of SVIDs and the authority."""
    certificate_authority.install(authority.issue_svid("survey"), tmp_path / "survey")
    authority.save(tmp_path / "ca")

    for key in (tmp_path / "survey" / "tls.key", tmp_path / "ca" / "root.key"):
        assert 0o600 == stat.S_IMODE(key.stat().st_mode)


def test_issue_all_keeps_what_is_fresh(authority: CertificateAuthority, tmp_path: Path) -> None:
    """A second run issues nothing; another authority reissues everything."""
    certificate_authority.issue_all(authority, tmp_path)
    first = {entry.name: entry.serial for entry in certificate_authority.show(tmp_path)}
    certificate_authority.issue_all(authority, tmp_path)
    second = {entry.name: entry.serial for entry in certificate_authority.show(tmp_path)}
    certificate_authority.issue_all(CertificateAuthority.create(), tmp_path)
    third = {entry.name: entry.serial for entry in certificate_authority.show(tmp_path)}

    assert {"gateway", "auth", "survey", "health", "operator", "edge"} == set(first)
    assert first == second
    assert not set(first.values()) & set(third.values())


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "ca.crt"])
@pytest.mark.parametrize("content", ["", "of another authority"])
def test_unusable_certificates_are_issued_again(
    authority: CertificateAuthority, tmp_path: Path, name: str, content: str
) -> None:
    """An SVID with an empty file, or with one of another SVID, is replaced at the next start."""
    certificate_authority.issue_all(authority, tmp_path)
    folder = tmp_path / "survey"
    other = CertificateAuthority.create().issue_svid("survey").files()[name]
    (folder / name).write_bytes(other if content else b"")

    certificate_authority.issue_all(authority, tmp_path)

    key = load_pem_private_key((folder / "tls.key").read_bytes(), None)
    assert leaf(folder).public_key() == key.public_key()
    assert authority.pem() == (folder / "ca.crt").read_bytes()


def test_replacement_is_atomic(authority: CertificateAuthority, tmp_path: Path) -> None:
    """The three files change together through one link, and old versions are removed."""
    for _ in range(5):
        certificate_authority.install(authority.issue_svid("survey"), tmp_path)

    versions = [p for p in tmp_path.iterdir() if p.name.startswith("..") and not p.is_symlink()]
    assert (tmp_path / "..data").is_symlink()
    assert 2 == len(versions)


def test_expired_authority(tmp_path: Path) -> None:
    """An expired authority is rejected with advice."""
    CertificateAuthority.create(lifetime=-dt.timedelta(seconds=1)).save(tmp_path)

    with pytest.raises(CaError, match=r"expired on .* Remove that folder"):
        CertificateAuthority.load_or_create(tmp_path)


def test_damaged_authority(tmp_path: Path) -> None:
    """An authority without its key is rejected, not silently replaced."""
    CertificateAuthority.create().save(tmp_path)
    (tmp_path / "root.key").unlink()

    with pytest.raises(CaError, match="cannot be read"):
        CertificateAuthority.load_or_create(tmp_path)


def test_rotation_after_one_that_was_killed(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    """A link left behind by a killed rotation does not prevent the next one."""
    certificate_authority.install(authority.issue_svid("survey"), tmp_path)
    (tmp_path / "..data_tmp").symlink_to("..0")

    certificate_authority.install(authority.issue_svid("survey"), tmp_path)

    assert not (tmp_path / "..data_tmp").is_symlink()


def test_certificates_on_a_full_disk(authority: CertificateAuthority, small_disk: Path) -> None:
    """The old certificates remain, and nothing of the new ones is left behind."""
    certificate_authority.install(authority.issue_svid("survey"), small_disk / "survey")
    before = sorted((small_disk / "survey").iterdir())
    old = (small_disk / "survey" / "tls.crt").read_bytes()
    fill(small_disk)

    with pytest.raises(OSError, match="space"):
        certificate_authority.install(authority.issue_svid("survey"), small_disk / "survey")

    assert before == sorted((small_disk / "survey").iterdir())
    assert old == (small_disk / "survey" / "tls.crt").read_bytes()


def test_certificate_of_another_key(authority: CertificateAuthority, tmp_path: Path) -> None:
    """A root certificate that does not match the key is rejected with advice."""
    authority.save(tmp_path)
    CertificateAuthority.create().save(tmp_path / "other")
    (tmp_path / "other" / "root.key").replace(tmp_path / "root.key")

    with pytest.raises(CaError, match="do not match"):
        CertificateAuthority.load_or_create(tmp_path)
