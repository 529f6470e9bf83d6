"""The SMTP server's settings, STARTTLS, and message headers."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from auth_svc.errors import InvalidEmailError
from auth_svc.mail.smtp import SmtpServer, compose
from auth_svc.sign_in.addresses import AllowedDomains
from mesh.chassis.testing import FakeClock
from tests.auth_svc.mail.sink import SENDER, Sink, listening, mail, queue


def self_signed(folder: Path) -> ssl.SSLContext:
    """Return a server context with an untrusted certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sink")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = folder / "sink.pem"
    pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


class TestStartTls:
    async def test_required(self, clock: FakeClock, capsys: pytest.CaptureFixture[str]) -> None:
        """If STARTTLS is required, nothing is sent to a server that does not offer it."""
        sink = Sink()
        async with listening(sink) as port, queue(port, clock, starttls="required") as mailer:
            mailer.enqueue(mail(clock))

        assert 0 == sink.attempts
        assert "lacks an extension" in "".join(capsys.readouterr())

    @pytest.mark.parametrize("offered", [True, False])
    async def test_opportunistic(self, clock: FakeClock, tmp_path: Path, offered: bool) -> None:
        """In development, STARTTLS is used if offered, with any certificate."""
        options = {"tls_context": self_signed(tmp_path)} if offered else {}
        sink = Sink()
        async with (
            listening(sink, **options) as port,
            queue(port, clock, starttls="opportunistic") as mailer,
        ):
            mailer.enqueue(mail(clock))

        assert {"ada@example.org"} == sink.recipients
        assert [offered] == sink.encrypted


@pytest.mark.parametrize("to", ["a@example.org\nBcc: b@evil.com", "a@example.org\r\nX: y"])
def test_headers_cannot_be_added(clock: FakeClock, to: str) -> None:
    """A line break in an address cannot become a header."""
    with pytest.raises(ValueError, match=r"(?i)linefeed|newline|return"):
        compose(mail(clock, to), SENDER, clock)


@pytest.mark.parametrize(
    ("domain", "ascii_domain"),
    [
        ("straße.example", "xn--strae-oqa.example"),
        ("βόλος.example", "xn--nxasmm1c.example"),
        ("universität.example", "xn--universitt-y5a.example"),
        ("example.org", "example.org"),
    ],
)
def test_domain_of_the_mail(clock: FakeClock, domain: str, ascii_domain: str) -> None:
    """Mail goes to the domain that may sign in, not to the one of IDNA 2003.

    Source:
        RFC 5891; the deviation characters are those of UTS 46, section 4.1.
    """
    assert compose(mail(clock, f"ada@{domain}"), SENDER, clock)["To"] == f"ada@{ascii_domain}"
    assert AllowedDomains([domain]).parse(f"ada@{domain}")
    with pytest.raises(InvalidEmailError):
        AllowedDomains([domain]).parse("ada@strasse.example")


class TestServer:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("smtp://127.0.0.1:3012", SmtpServer("127.0.0.1", 3012, tls=False, starttls="never")),
            ("smtp://localhost:25", SmtpServer("localhost", 25, tls=False, starttls="never")),
            (
                "smtp://mail.example.org",
                SmtpServer("mail.example.org", 587, tls=False, starttls="required"),
            ),
            (
                "smtps://mail.example.org",
                SmtpServer("mail.example.org", 465, tls=True, starttls="never"),
            ),
            (
                "smtps://u%40x@mail.example.org",
                SmtpServer("mail.example.org", 465, tls=True, starttls="never", username="u@x"),
            ),
        ],
    )
    def test_parse(self, url: str, expected: SmtpServer) -> None:
        """Only mail to the local machine is sent without TLS."""
        assert expected == SmtpServer.parse(url)

    @pytest.mark.parametrize("url", ["", "http://x", "smtp://", "smtp://u:p@x", "smtp://x:99999"])
    def test_refused(self, url: str) -> None:
        """Other URLs, and passwords in URLs, are rejected."""
        with pytest.raises(ValueError):
            SmtpServer.parse(url)

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("smtp://outbox:3012", "opportunistic"),
            ("smtp://ada@outbox:3012", "required"),
            ("smtps://outbox", "never"),
        ],
        ids=["plain", "with a login", "implicit TLS"],
    )
    def test_development(self, url: str, expected: str) -> None:
        """Outside production STARTTLS is optional, unless a password would be sent."""
        assert expected == SmtpServer.parse(url, strict=False).starttls
