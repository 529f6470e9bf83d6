"""The redaction rule, against a corpus of credentials and harmless texts."""

from typing import Any

import pytest

from mesh.console.intake import redaction

P = "Planted9secret"
"""What must not be found in what is stored."""

NAMES = (
    *("password", "userPassword", "user.password", "DB_PASSWORD", "db-password", "passwd", "pwd"),
    *("http.request.header.authorization", "Authorization", "proxy-authorization", "cookie"),
    *("set-cookie", "http.response.header.set-cookie", "sessionCookie", "x-api-key", "apiKey"),
    *("APIKey", "api_key", "api.key", "apikey", "privateKey", "private_key", "PRIVATE-KEY"),
    *("accessToken", "access_token", "accesstoken.token", "refreshToken", "id_token", "csrfToken"),
    *("auth.user_token", "X-Auth-Token", "bearerToken", "clientSecret", "client_secret", "secret"),
    *("session_secret", "AWS_SECRET_ACCESS_KEY", "signingKey", "encryption_key", "credentials"),
    *("credential", "passphrase", "otp", "totp", "jwt", "user.jwt", "gcp.credentials.json"),
    *("__Host-session", "masterKey", "redcap.api_token", "tokens", "secrets", "JSESSIONID"),
)
TEXTS = (
    f"Bearer {P}",
    f"bearer {P}",
    f"Authorization: Bearer {P}",
    f"authorization=Basic {P}",
    f"Authorization: Basic dXNlcjo{P}==",
    f"Authorization: Digest {P}",
    f"header Bearer abcdefgh-{P}-ijklmnop",
    f"sent cookie: session={P}; theme=dark",
    f"Set-Cookie: sid={P}; HttpOnly; Secure",
    f"Cookie: a=1; b={P}",
    f"__Host-amarre={P}",
    f"password={P}",
    f"password: {P}",
    "password=123456789Planted",
    f'{{"password": "{P}"}}',
    f"{{'password': '{P}'}}",
    f"passwd={P} user=ada",
    f"pwd={P};database=x",
    f"Server=db;User Id=sa;Password={P};",
    f"user=ada pass={P}",
    f"access_token={P}",
    f"#access_token={P}&token_type=bearer",
    f"accessToken={P}",
    f'"accessToken":"{P}"',
    f"refresh_token: {P}",
    f"api_key={P}",
    f"api-key: {P}",
    f"X-Api-Key: {P}",
    f"client_secret={P}",
    f"secret={P}",
    f"secret => {P}",
    f"token={P}",
    f"token: {P}",
    f"GET /confirm?secret={P}",
    f"GET /login?userId=1&secret={P} HTTP/1.1",
    f"/api/v1/x?token={P}",
    f"https://example.org/login?secret={P}",
    f"https://example.org/cb#access_token={P}",
    f"https://example.org/cb#/x?code={P}",
    f"wss://example.org/live?ticket={P}",
    f"redirect to https://example.org/?q={P}, please",
    f"redis://:{P}@cache:6379/0",
    f"redis://default:{P}@cache",
    f"postgresql://ada:{P}@db:5432/amarre",
    f"postgresql+asyncpg://ada:{P}@db/amarre",
    f"amqp://guest:{P}@mq//",
    f"mongodb+srv://ada:{P}@cluster.example.net/x",
    f"https://{P}@github.com/org/repo.git",
    f"smtp login ada:{P}@mail:587",
    "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJQbGFudGVkOXNlY3JldCJ9.Planted9secret",
    f"jwt eyJhbGciOiJub25lIn0.Planted9secret.{P}",
    "ada.Planted9secret@example.org",
    "mail to Planted9secret@example.org please",
    "josé.Planted9secret@exämple.org",
    "<Planted9secret+tag@sub.example.co.uk>",
    "user=Planted9secret%40example.org",
    '"Planted9secret"@example.org',
    "Planted9secret@example.xn--p1ai",
    "-----BEGIN PRIVATE KEY-----\nPlanted9secret\n-----END PRIVATE KEY-----",
    "-----BEGIN RSA PRIVATE KEY-----\nPlanted9secret",
    "key AKIAPLANTED9SECRETXX used",
    "ghp_Planted9secretPlanted9secretPlanted9",
    "github_pat_Planted9secretPlanted9secret",
    "glpat-Planted9secret-planted",
    "xoxb-1234567890-Planted9secret",
    "AIzaPlanted9secretPlanted9secretPlanted9s",
    "sk_live_Planted9secret",
    "sk-Planted9secretPlanted9secret",
    "npm_Planted9secretPlanted9secretPlanted9",
    "hf_Planted9secretPlanted9secret",
    "SG.Planted9secretPlan.Planted9secretPlanted",
    "REDCap token 9A81268476645C4E5F03428B8AC3AA7B",
    "super 9A81268476645C4E5F03428B8AC3AA7B9A81268476645C4E5F03428B8AC3AA7B",
)
HARMLESS_VALUES: tuple[tuple[str, Any], ...] = (
    ("gen_ai.usage.input_tokens", 321),
    ("gen_ai.usage.output_tokens", 12),
    ("password.changed", True),
    ("token.count", 3),
    ("token_type", "Bearer"),
    ("auth.token.type", "jwt"),
    ("tokenType", "access"),
    ("secret.name", "tls-survey"),
    ("k8s.secret.version", "v3"),
    ("cookie.name", "session"),
    ("password_policy", "twelve characters"),
    ("passwordLength", 14),
    ("token.expires_at", "2026-01-05T12:00:00Z"),
    ("token.status", "expired"),
    ("authorization.result", "allowed"),
    ("tokens", 17),
    ("cookies", 2),
    ("secret", False),
    ("service.name", "auth"),
    ("db.name", "surveys"),
    ("rpc.method", "ListRequests"),
    ("key", "value"),
    ("cache.key", "requests:42"),
    ("messaging.key", "partition-1"),
    ("author", "a library"),
    ("tokenizer", "words"),
    ("secretary", "office"),
    ("passenger", "none"),
    ("http.route", "/api/v1/me"),
    ("enduser.pseudo.id", "0123456789abcdef"),
    ("code.email", "no person"),
    ("compass", "north"),
    ("keyboard", "azerty"),
)
HARMLESS = (
    "react@18.2.0",
    "@scope/package@1.2.3",
    "pip install grpcio@1.85",
    "logo@2x.png",
    "actions/checkout@v4",
    "service@v1",
    "git rev HEAD@{1}",
    "GET /api/v1/surveys/requests",
    "POST redcap",
    "amarre.survey.v1.SurveyService/ListRequests",
    "https://example.org/docs/page",
    "https://example.org/docs/page#section-2",
    "http://127.0.0.1:3000/healthz",
    "127.0.0.1:3002",
    "[::1]:3001",
    "unix:///run/amarre/survey.sock",
    "spiffe://amarre.local/ns/amarre/sa/survey",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "4bf92f3577b34da6a3ce929d0e0e4736",
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "0123456789abcdef",
    "550e8400-e29b-41d4-a716-446655440000",
    "basic authentication failed",
    "Basic settings saved",
    "bearer authentication is required",
    "Bearer token-based access",
    "Invalid token: signature mismatch",
    "token: expired",
    "token expired",
    "password: required",
    "password is wrong",
    "password=missing",
    "the password must be changed",
    "secret: none",
    "cookie: missing",
    "cookie not sent",
    "no cookies were set",
    "authorization: denied",
    "Authorization: the caller is not allowed",
    "tokens=321",
    "input_tokens: 321",
    "token_count=12",
    "token_type=bearer",
    "attempt=3 of=5",
    "a=1 b=2",
    "x == y",
    "retries: 3, timeout: 2s",
    "duration=12.5ms",
    "level=info msg=ready",
    "Is it up? It is.",
    "What did /healthz? Nothing",
    "and/or?",
    "SELECT id FROM names WHERE text = ?",
    "SELECT * FROM spans WHERE trace = ? AND span_id = ?",
    "key=value",
    "cache key: requests:42",
    "primary key violated",
    "foreign key: names.id",
    "keyboard: azerty",
    "author=ada",
    "tokenizer=words",
    "passed=3 failed=0",
    "bypass=true",
    "état: prêt",
    "questionnaire à remplir : étape 2",
    "2026-01-05T12:00:00Z",
    "12:30:45.123",
    "/var/lib/amarre/console.sqlite",
    "C:\\Users\\x\\file.txt",
    "std::vector<int>",
    "key-value store",
    "skip-list",
    "sk-1",
    "hf_model",
    "npm_config",
    "issue #12",
    "colour #ff8800",
    "PEM certificate -----BEGIN CERTIFICATE----- MIIB -----END CERTIFICATE-----",
    "UNAVAILABLE: connection refused",
    "DEADLINE_EXCEEDED",
    "HTTP/1.1 200 OK",
    "text/html; charset=utf-8",
    "gzip, deflate, br",
    "max-age=3600, public",
    'W/"abc-123"',
    "en-GB,en;q=0.9",
)


def stored(key: str, found: Any) -> str:
    return str(redaction.value(key, found))


def test_corpus_is_large_enough() -> None:
    """
    The corpus has at least 100 distinct secrets and 100 distinct harmless texts.
    """
    assert len({*NAMES, *TEXTS}) == len(NAMES) + len(TEXTS) >= 100
    assert len({*HARMLESS}) + len(HARMLESS_VALUES) >= 100


@pytest.mark.parametrize("key", NAMES)
def test_name(key: str) -> None:
    """
    An attribute named like a credential is redacted, in any case style, also nested.
    """
    assert redaction.REDACTED == redaction.value(key, P)
    assert P not in stored(key, [P])
    assert P not in stored("outer", {key: {"inner": [1, P]}})


@pytest.mark.parametrize("text", TEXTS)
def test_look(text: str) -> None:
    """
    A credential or an e-mail address is removed from any text by pattern.
    """
    cleaned = redaction.clean(text)

    for secret in (P, "9A81268476645C4E", "PLANTED9", "Planted"):
        assert secret not in cleaned
    assert redaction.REDACTED in cleaned
    assert redaction.REDACTED in redaction.clean(f"{'x ' * 200}{text}")
    assert P not in stored("note", [text])


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text(text: str) -> None:
    """
    A text without a credential is unchanged.
    """
    assert text == redaction.clean(text)


@pytest.mark.parametrize(("key", "found"), HARMLESS_VALUES, ids=[k for k, _ in HARMLESS_VALUES])
def test_harmless_value(key: str, found: Any) -> None:
    """
    A number, a boolean, or a description of a credential is unchanged.
    """
    assert found == redaction.value(key, found)
