"""Mail over STARTTLS to the real outbox, with certificates of the mesh's CA."""

import contextlib
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from auth_svc.mail.queue import MailQueue
from auth_svc.mail.smtp import SmtpServer
from mesh.chassis.testing import FakeClock, free_port
from mesh.local.pki.certificate_authority import CertificateAuthority, Issued, install
from sandbox.outbox import smtp
from sandbox.outbox.store import Store
from tests.auth_svc.mail.sink import SENDER, mail


@contextlib.asynccontextmanager
async def outbox(folder: Path, issued: Issued) -> AsyncIterator[tuple[int, Store]]:
    """Run the outbox with a certificate; yield its port and its mail."""
    install(issued, folder / "outbox")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "outbox/tls.crt", folder / "outbox/tls.key")
    port = free_port()
    with contextlib.closing(Store(folder / "outbox.db")) as store:
        async with await smtp.listen(store, "127.0.0.1", port, tls=context):
            yield port, store


def queue(port: int, clock: FakeClock, ca_file: Path | None) -> MailQueue:
    server = SmtpServer.parse(f"smtp://localhost:{port}", ca_file=ca_file)
    return MailQueue(server, SENDER, clock, pauses=(0.01,))


def issue(authority: CertificateAuthority, name: str = "localhost", days: float = 1) -> Issued:
    start = datetime.now(UTC) - timedelta(days=2)
    lifetime = timedelta(days=2 + days)
    return authority.issue(
        uris=[], names=[name], common_name=name, lifetime=lifetime, not_before=start
    )


async def test_sent(clock: FakeClock, tmp_path: Path, authority: CertificateAuthority) -> None:
    """With the CA of the mail server, mail is sent over STARTTLS, also on the local machine."""
    async with outbox(tmp_path, issue(authority)) as (port, store):
        async with queue(port, clock, tmp_path / "outbox/ca.crt") as mailer:
            mailer.enqueue(mail(clock))
            assert await mailer.is_reachable()
        assert [("ada@example.org",)] == [message.to for message in store.newest_first()]


async def test_plain_text(
    clock: FakeClock, tmp_path: Path, authority: CertificateAuthority
) -> None:
    """An outbox with a certificate accepts no mail in plain text (RFC 3207)."""
    async with outbox(tmp_path, issue(authority)) as (port, store):
        async with queue(port, clock, None) as mailer:
            mailer.enqueue(mail(clock))
        assert 0 == store.count()


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("another CA", "issuer certificate"),
        ("expired", "certificate has expired"),
        ("another host", "Hostname mismatch"),
    ],
)
async def test_rejected(
    clock: FakeClock,
    tmp_path: Path,
    authority: CertificateAuthority,
    capsys: pytest.CaptureFixture[str],
    case: str,
    reason: str,
) -> None:
    """
    Nothing is sent to a server whose certificate cannot be verified; the log says why, and the
    server is not reachable for the health check.
    """
    issued = issue(authority)
    if case == "expired":
        issued = issue(authority, days=-1)
    elif case == "another host":
        issued = issue(authority, "mail.example.org")
    ca = CertificateAuthority.create() if case == "another CA" else authority
    (tmp_path / "ca.pem").write_bytes(ca.pem())

    async with outbox(tmp_path, issued) as (port, store):
        async with queue(port, clock, tmp_path / "ca.pem") as mailer:
            mailer.enqueue(mail(clock))
            with pytest.raises(ssl.SSLCertVerificationError):
                await mailer.is_reachable()
        assert 0 == store.count()

    logged = "".join(capsys.readouterr())
    assert "mail server certificate rejected" in logged
    assert reason in logged


def test_settings(tmp_path: Path) -> None:
    """With CA certificates, STARTTLS is required and verified, wherever the server is."""
    for strict in (True, False):
        for host in ("127.0.0.1", "localhost", "mail.example.org"):
            server = SmtpServer.parse(f"smtp://{host}", strict=strict, ca_file=tmp_path)
            assert "required" == server.starttls
    assert "never" == SmtpServer.parse("smtps://mail.example.org", ca_file=tmp_path).starttls


@pytest.mark.parametrize("options", [["--certificate", "x.pem"], ["--key", "x.pem"]])
def test_half_a_certificate(tmp_path: Path, options: list[str]) -> None:
    """The outbox says which option is missing, and which file cannot be read."""
    command = [sys.executable, "-m", "sandbox.outbox", "--database", str(tmp_path / "x.db")]
    addresses = ["--http", f"127.0.0.1:{free_port()}", "--smtp", f"127.0.0.1:{free_port()}"]

    found = subprocess.run([*command, *addresses, *options], capture_output=True, text=True)
    assert (2, "Give both --certificate and --key, or neither.\n") == (
        found.returncode,
        found.stderr,
    )

    both = ["--certificate", "none.pem", "--key", "none.pem"]
    found = subprocess.run([*command, *addresses, *both], capture_output=True, text=True)
    assert 2 == found.returncode
    assert "none.pem cannot be used (No such file or directory)" in found.stderr
