"""Internal user tokens: issued tokens are verified, forged ones rejected."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mesh.chassis.call import User
from mesh.chassis.errors import UnavailableError
from mesh.chassis.identity import SpiffeId
from mesh.chassis.testing import FakeClock, FixedKeys
from mesh.chassis.tokens import (
    LIFETIME,
    InvalidTokenError,
    RemoteKeys,
    SigningKey,
    TokenVerifier,
    mint,
    parse_key_set,
)

GATEWAY = SpiffeId("amarre.local", "amarre", "gateway")
ADA = User(
    "64b7f0c2a1d3e4f5a6b7", "5f0c6f3e-0000-4000-8000-000000000001", "ada@example.org", ("a",)
)
KEY = SigningKey.generate()
OTHER = SigningKey.generate()
CLOCK = FakeClock()


def verifier(clock: FakeClock = CLOCK, *keys: SigningKey) -> TokenVerifier:
    return TokenVerifier(FixedKeys(*(keys or (KEY,))), audience="survey", now=clock.time)


def token(key: SigningKey = KEY, clock: FakeClock = CLOCK, audience: str = "survey") -> str:
    return mint(key, ADA, audience=audience, caller=GATEWAY, now=clock.time)[0]


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def signed(header: object, claims: object, key: SigningKey = KEY) -> str:
    """Sign arbitrary headers and claims with a valid key."""
    text = ".".join(
        encode(part if isinstance(part, bytes) else json.dumps(part).encode())
        for part in (header, claims)
    )
    return f"{text}.{encode(key.private.sign(text.encode()))}"


HEADER, CLAIMS = (decode(part) for part in token().split(".")[:2])
NOW = int(CLOCK.time())


def with_header(**changes: object) -> str:
    return signed({**HEADER, **changes}, CLAIMS)


def with_claims(**changes: object) -> str:
    return signed(HEADER, {**CLAIMS, **changes})


def without_claim(name: str) -> str:
    return signed(HEADER, {key: value for key, value in CLAIMS.items() if key != name})


def by_hmac() -> str:
    """Sign with the public key as if it were a shared secret."""
    raw = KEY.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    text = f"{encode(json.dumps({**HEADER, 'alg': 'HS256'}).encode())}.{token().split('.')[1]}"
    return f"{text}.{encode(hmac.new(raw, text.encode(), hashlib.sha256).digest())}"


def by_ecdsa() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = {"kty": "EC", "crv": "P-256", "x": "", "y": ""}
    text = ".".join(
        encode(json.dumps(part).encode())
        for part in ({**HEADER, "alg": "ES256", "jwk": jwk}, CLAIMS)
    )
    r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(SHA256())))
    return f"{text}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def by_rsa() -> str:
    key = rsa.generate_private_key(65_537, 2_048)
    text = ".".join(
        encode(json.dumps(part).encode()) for part in ({**HEADER, "alg": "RS256"}, CLAIMS)
    )
    return f"{text}.{encode(key.sign(text.encode(), PKCS1v15(), SHA256()))}"


def with_embedded_key() -> str:
    """Include the signing key in the header, which RFC 7515 permits and we do not."""
    return signed({**HEADER, "kid": OTHER.kid, "jwk": OTHER.jwk()}, CLAIMS, OTHER)


def part(index: int, change: Callable[[str], str]) -> str:
    parts = token().split(".")
    parts[index] = change(parts[index])
    return ".".join(parts)


def other_spelling(text: str) -> str:
    """Return another encoding of the same bytes: the unused bits of the last character set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) + 1]


def repeated_claim() -> str:
    claims = json.dumps(CLAIMS)[:-1] + f', "sub": "{"0" * 20}"}}'
    return signed(HEADER, claims.encode())


def repeated_header() -> str:
    header = json.dumps(HEADER)[:-1] + ', "alg": "EdDSA"}'
    return signed(header.encode(), CLAIMS)


FORGED: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "no JWT": lambda: "Bearer",
    "two parts": lambda: token().rpartition(".")[0],
    "four parts": lambda: f"{token()}.x",
    "no signature": lambda: token().rpartition(".")[0] + ".",
    "alg none": lambda: with_header(alg="none").rpartition(".")[0] + ".",
    "alg none, signed": lambda: with_header(alg="none"),
    "alg HS256 with the public key": by_hmac,
    "alg RS256": by_rsa,
    "alg ES256 with its key": by_ecdsa,
    "alg of another case": lambda: with_header(alg="eddsa"),
    "alg of a list": lambda: with_header(alg=["EdDSA"]),
    "another key": lambda: signed(HEADER, CLAIMS, OTHER),
    "another key under its own id": lambda: token(OTHER),
    "embedded key": with_embedded_key,
    "key by URL": lambda: with_header(jku="http://evil.example/jwks.json"),
    "certificate chain": lambda: with_header(x5c=["AAAA"]),
    "critical extension": lambda: with_header(crit=["b64"], b64=False),
    "no kid": lambda: signed({k: v for k, v in HEADER.items() if k != "kid"}, CLAIMS),
    "kid of a path": lambda: with_header(kid="../../etc/passwd"),
    "kid of a number": lambda: with_header(kid=1),
    "another typ": lambda: with_header(typ="JWT"),
    "no typ": lambda: signed({k: v for k, v in HEADER.items() if k != "typ"}, CLAIMS),
    "another audience": lambda: token(audience="health"),
    "audience in a list": lambda: with_claims(aud=["survey"]),
    "two audiences": lambda: with_claims(aud=["survey", "health"]),
    "audience in another case": lambda: with_claims(aud="Survey"),
    "no audience": lambda: without_claim("aud"),
    "another issuer": lambda: with_claims(iss="https://evil.example"),
    "no issuer": lambda: without_claim("iss"),
    "another caller": lambda: with_claims(azp=str(SpiffeId("amarre.local", "amarre", "survey"))),
    "caller of another trust domain": lambda: with_claims(
        azp=str(GATEWAY).replace("local", "evil")
    ),
    "no caller": lambda: without_claim("azp"),
    "ended": lambda: with_claims(iat=NOW - 60, exp=NOW),
    "no end": lambda: without_claim("exp"),
    "end that is text": lambda: with_claims(exp=str(NOW + 60)),
    "end that is a fraction": lambda: with_claims(exp=NOW + 59.5),
    "end that is true": lambda: with_claims(exp=True),
    "end at infinity": lambda: signed(HEADER, json.dumps({**CLAIMS, "exp": float("inf")}).encode()),
    "too long a life": lambda: with_claims(exp=NOW + 61),
    "from the future": lambda: with_claims(iat=NOW + 30, exp=NOW + 60),
    "ends before it begins": lambda: with_claims(iat=NOW + 4, exp=NOW + 3),
    "no begin": lambda: without_claim("iat"),
    "not before": lambda: with_claims(nbf=NOW),
    "no subject": lambda: without_claim("sub"),
    "empty subject": lambda: with_claims(sub=""),
    "subject that is a number": lambda: with_claims(sub=7),
    "no id": lambda: without_claim("jti"),
    "no session": lambda: without_claim("sid"),
    "labels that are text": lambda: with_claims(labels="operator"),
    "labels of numbers": lambda: with_claims(labels=[1]),
    "no sign-in time": lambda: without_claim("auth_time"),
    "sign-in time that is text": lambda: with_claims(auth_time=str(NOW)),
    "sign-in time that is true": lambda: with_claims(auth_time=True),
    "sign-in in the future": lambda: with_claims(auth_time=NOW + 30),
    "no word on factors": lambda: without_claim("partial"),
    "a word on factors that is a number": lambda: with_claims(partial=0),
    "one more claim": lambda: with_claims(admin=True),
    "claims that are a list": lambda: signed(HEADER, [CLAIMS]),
    "claims that are no JSON": lambda: signed(HEADER, b"{"),
    "a claim twice": repeated_claim,
    "a header twice": repeated_header,
    "claims changed": lambda: part(1, lambda _: encode(json.dumps(CLAIMS).encode() + b" ")),
    "padding": lambda: part(2, lambda text: text + "=="),
    "another spelling of the signature": lambda: part(2, other_spelling),
    "standard base64": lambda: part(0, lambda text: text + "+/"),
    "white space": lambda: token() + "\n",
    "space before": lambda: " " + token(),
    "too large": lambda: with_claims(email="a" * 5_000),
    "deeply nested": lambda: signed(HEADER, b"[" * 1_300 + b"]" * 1_300),
}


class TestVerify:
    async def test_minted_is_verified(self) -> None:
        """A token from Auth is valid for its audience and caller, repeatedly."""
        checked = verifier()

        assert ADA == await checked.verify(token(), caller=GATEWAY)
        assert ADA == await checked.verify(token(), caller=GATEWAY)

    def test_forgeries_are_distinct(self) -> None:
        """The forgeries use the valid clock and key, and are all different."""
        made = {name: forge() for name, forge in FORGED.items()}

        assert 21 <= len(made) == len(set(made.values()))
        assert token() not in made.values()

    @pytest.mark.parametrize("name", FORGED)
    async def test_forged(self, name: str) -> None:
        """A forged token is rejected, also the second time."""
        forged, checked = FORGED[name](), verifier()

        for _ in range(2):
            with pytest.raises(InvalidTokenError) as ei:
                await checked.verify(forged, caller=GATEWAY)
        assert not forged or forged not in str(ei.value)

    @pytest.mark.parametrize("remembered", [True, False], ids=["remembered", "new"])
    async def test_ends(self, remembered: bool) -> None:
        """A token expires after 60 s, even if it was verified before."""
        clock = FakeClock()
        checked, good = verifier(clock), token(clock=clock)
        if remembered:
            await checked.verify(good, caller=GATEWAY)

        clock.advance(LIFETIME - timedelta(seconds=1))
        if remembered:
            await checked.verify(good, caller=GATEWAY)
        clock.advance(timedelta(seconds=1))

        with pytest.raises(InvalidTokenError):
            await checked.verify(good, caller=GATEWAY)

    async def test_caller_is_compared_every_time(self) -> None:
        """A token that is cached for its caller is rejected from another."""
        checked, good = verifier(), token()
        await checked.verify(good, caller=GATEWAY)

        for name in ("survey", "health", "operator"):
            with pytest.raises(InvalidTokenError):
                await checked.verify(good, caller=SpiffeId("amarre.local", "amarre", name))

    async def test_memory_is_bounded(self) -> None:
        """The number of cached tokens is bounded."""
        checked = verifier()
        for _ in range(4_200):
            await checked.verify(token(), caller=GATEWAY)

        assert 4_096 >= len(checked._verified)

    def test_every_token_has_its_own_id(self) -> None:
        """Two tokens for the same user differ."""
        assert token() != token()


class KeySet:
    """A fake key set endpoint that counts fetches and can be unavailable."""

    def __init__(self, *keys: SigningKey) -> None:
        self.keys = keys
        self.unavailable = False
        self.fetched = 0

    async def fetch(self) -> bytes:
        """Return the key set as published by Auth."""
        self.fetched += 1
        if self.unavailable:
            raise OSError("unavailable")
        return json.dumps({"keys": [key.jwk() for key in self.keys]}).encode()


class TestRotation:
    async def test_no_token_is_refused_meanwhile(self) -> None:
        """
        If the new key is published a minute before it signs, and the old one as long after, every
        token in between is valid.
        """
        clock, keys = FakeClock(), KeySet(KEY)
        remote = RemoteKeys(keys.fetch, now=clock.time)
        checked = TokenVerifier(remote, audience="survey", now=clock.time)
        steps = [((KEY,), KEY), ((KEY, OTHER), KEY), ((OTHER, KEY), OTHER), ((OTHER,), OTHER)]

        for published, signing in steps:
            keys.keys = published
            for _ in range(7):
                await checked.verify(token(signing, clock), caller=GATEWAY)
                clock.advance(timedelta(seconds=10))

        clock.advance(timedelta(seconds=60))
        with pytest.raises(InvalidTokenError):
            await checked.verify(token(KEY, clock), caller=GATEWAY)

    async def test_new_key_is_fetched_at_once(self) -> None:
        """An unknown key id triggers a fetch at once, but at most once a second."""
        clock, keys = FakeClock(), KeySet(KEY)
        remote = RemoteKeys(keys.fetch, now=clock.time)
        assert await remote.get(KEY.kid) is not None

        keys.keys = (KEY, OTHER)
        clock.advance(timedelta(seconds=1))
        assert await remote.get(OTHER.kid) is not None
        for _ in range(50):
            assert await remote.get("unknown") is None
        assert 2 == keys.fetched

    async def test_many_at_once(self) -> None:
        """Concurrent callers wait for the first fetch of the keys; one fetch serves all."""
        keys, published = KeySet(KEY), asyncio.Event()

        async def fetch() -> bytes:
            await published.wait()
            return await keys.fetch()

        remote = RemoteKeys(fetch)
        waiting = [asyncio.create_task(remote.get(KEY.kid)) for _ in range(20)]
        await asyncio.wait(waiting, timeout=0.01)
        published.set()

        assert None not in await asyncio.gather(*waiting)
        assert 1 == keys.fetched

    async def test_auth_unavailable(self) -> None:
        """While Auth is unavailable, its keys remain valid for five minutes, and no longer."""
        clock, keys = FakeClock(), KeySet(KEY)
        remote = RemoteKeys(keys.fetch, now=clock.time)
        await remote.get(KEY.kid)
        keys.unavailable = True

        clock.advance(timedelta(seconds=299))
        assert await remote.get(KEY.kid) is not None
        clock.advance(timedelta(seconds=2))
        with pytest.raises(UnavailableError):
            await remote.get(KEY.kid)
        keys.unavailable = False
        clock.advance(timedelta(seconds=1))
        assert await remote.get(KEY.kid) is not None

    async def test_never_fetched(self) -> None:
        """As long as no key could be fetched, verification fails with UNAVAILABLE."""
        clock, keys = FakeClock(), KeySet(KEY)
        keys.unavailable = True
        checked = TokenVerifier(
            RemoteKeys(keys.fetch, now=clock.time), audience="survey", now=clock.time
        )
        for _ in range(3):
            with pytest.raises(UnavailableError):
                await checked.verify(token(KEY, clock), caller=GATEWAY)
        assert 1 == keys.fetched

    @pytest.mark.parametrize(
        "jwk",
        [
            {"kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB"},
            {"kty": "OKP", "crv": "X25519", "kid": "a", "x": "AA"},
            {"kty": "oct", "kid": "a", "k": "AA"},
        ],
        ids=["RSA", "X25519", "shared secret"],
    )
    def test_keys_of_other_kinds_are_not_taken(self, jwk: dict[str, str]) -> None:
        """Only Ed25519 keys are read from a key set."""
        document = json.dumps({"keys": [jwk, KEY.jwk()]}).encode()

        assert [KEY.kid] == list(parse_key_set(document))

    @pytest.mark.parametrize(
        "bad",
        [
            *(None, 5, "x", [], {}, {"kty": "OKP", "crv": "Ed25519"}),
            {"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "AA"},
            {"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": None},
            {"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "é"},
        ],
    )
    def test_bad_key(self, bad: object) -> None:
        """A key that is not valid does not affect the others (RFC 7517, section 5)."""
        document = json.dumps({"keys": [bad, KEY.jwk(), bad]}).encode()
        assert [KEY.kid] == list(parse_key_set(document))

    @pytest.mark.parametrize(
        "document",
        [
            b"null",
            b"[]",
            b"5",
            b"{}",
            b'{"keys": 5}',
            b'{"keys": "x"}',
            b"<html>",
            b"\xff",
            b"[" * 100_000,
        ],
        ids=lambda document: repr(document[:12]),
    )
    def test_no_key_set(self, document: bytes) -> None:
        """Anything but a key set is one kind of error, after which the known keys stay."""
        with pytest.raises(ValueError, match=r"key set|Expecting|decode"):
            parse_key_set(document)
