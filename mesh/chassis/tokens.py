"""Internal user tokens: EdDSA JWTs of at most 60 s for one audience and one caller.

Issuing and verification are both here. Verification is stricter than in JWT libraries and
proxies, which accept headers and claims that this mesh never writes; see ADR 7.
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import json
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import httpx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mesh.chassis.call import User
from mesh.chassis.errors import UnavailableError
from mesh.chassis.identity import SpiffeId
from mesh.chassis.telemetry.clients import http_client

ISSUER = "https://auth.amarre.local"
TYPE = "amarre-user+jwt"
LIFETIME = timedelta(seconds=60)
SKEW_SECONDS = 5
_MOST_CACHED = 4096
_CLAIMS = {
    *("iss", "aud", "sub", "sid", "email", "labels", "azp", "iat", "exp", "jti"),
    *("auth_time", "partial"),
}
_HEADER = {"alg", "typ", "kid"}
_BASE64 = re.compile(r"[A-Za-z0-9_-]+")
Clock = Callable[[], float]


class InvalidTokenError(Exception):
    """The token is not from Auth, not for this service, or not valid now; the message says why."""


class Keys(Protocol):
    """Source of public keys for a verifier."""

    async def get(self, kid: str) -> Ed25519PublicKey | None:
        """Return the key with the id *kid*; None if there is none."""
        ...


@dataclass(frozen=True)
class SigningKey:
    """A private key and its id."""

    kid: str
    private: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> "SigningKey":
        """Generate a new key."""
        return cls.of(Ed25519PrivateKey.generate())

    @classmethod
    def of(cls, private: Ed25519PrivateKey) -> "SigningKey":
        """Identify *private* by the digest of its public key."""
        raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return cls(hashlib.sha256(raw).hexdigest()[:16], private)

    def jwk(self) -> dict[str, str]:
        """Return the public key as a JSON Web Key.

        Source:
            RFC 8037, section 2.
        """
        raw = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": "EdDSA",
            "use": "sig",
            "kid": self.kid,
            "x": _encode(raw),
        }


def mint(
    key: SigningKey,
    user: User,
    *,
    audience: str,
    caller: SpiffeId,
    now: Clock = time.time,
) -> tuple[str, datetime]:
    """Issue a token that only *caller* may present and only *audience* accepts.

    Returns:
        The token and its expiry time.
    """
    issued = int(now())
    ends = issued + int(LIFETIME.total_seconds())
    claims = {
        "iss": ISSUER,
        "aud": audience,
        "sub": user.id,
        "sid": user.session_id,
        "email": user.email,
        "labels": list(user.labels),
        "auth_time": user.signed_in_at,
        "partial": user.partial,
        "azp": str(caller),
        "iat": issued,
        "exp": ends,
        "jti": uuid.uuid4().hex,
    }
    header = {"alg": "EdDSA", "typ": TYPE, "kid": key.kid}
    signed = f"{_encode(_json(header))}.{_encode(_json(claims))}"
    signature = _encode(key.private.sign(signed.encode()))
    return f"{signed}.{signature}", datetime.fromtimestamp(ends, UTC)


class TokenVerifier:
    """Verifies tokens for one audience; caches a verified token for its lifetime."""

    def __init__(
        self,
        keys: Keys,
        *,
        audience: str,
        now: Clock = time.time,
        revoked: Container[str] = (),
    ) -> None:
        self._keys = keys
        self._audience = audience
        self._revoked = revoked
        self.now = now
        self._verified: OrderedDict[bytes, tuple[float, str, User]] = OrderedDict()

    async def verify(self, token: str, *, caller: SpiffeId) -> User:
        """Return the user of *token*.

        Raises:
            InvalidTokenError: The token is not from Auth, not for this audience or *caller*,
                or not valid now.
            UnavailableError: Auth's keys have not been fetched yet and cannot be.
        """
        digest = hashlib.sha256(token.encode()).digest()
        known = self._verified.get(digest)
        if known is None:
            known = await self._verify(token)
            self._remember(digest, known)
        ends_at, authorized_party, user = known
        if self.now() >= ends_at:
            self._verified.pop(digest, None)
            raise InvalidTokenError("The token has expired.")
        if authorized_party != str(caller):
            raise InvalidTokenError("The token was issued to another caller.")
        if user.session_id in self._revoked:
            raise InvalidTokenError("The session of the token has ended.")
        return user

    async def _verify(self, token: str) -> tuple[float, str, User]:
        header, claims, signed, signature = _parse(token)
        if set(header) != _HEADER or header["alg"] != "EdDSA" or header["typ"] != TYPE:
            raise InvalidTokenError("The token's header is not one that Auth issues.")
        kid = header["kid"]
        key = await self._keys.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise InvalidTokenError("The token's key is unknown.")
        try:
            key.verify(signature, signed)
        except InvalidSignature as exc:
            raise InvalidTokenError("The token's signature is invalid.") from exc
        self._check(claims)
        return (
            claims["exp"],
            claims["azp"],
            User(
                claims["sub"],
                claims["sid"],
                claims["email"],
                tuple(claims["labels"]),
                claims["auth_time"],
                claims["partial"],
            ),
        )

    def _check(self, claims: Mapping[str, Any]) -> None:
        if set(claims) != _CLAIMS:
            raise InvalidTokenError("The token's claims are not those that Auth issues.")
        texts = (claims[name] for name in ("sub", "sid", "email", "azp", "jti"))
        if not all(isinstance(text, str) for text in texts) or not claims["sub"]:
            raise InvalidTokenError("A claim of the token has the wrong type.")
        labels = claims["labels"]
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise InvalidTokenError("A claim of the token has the wrong type.")
        if claims["iss"] != ISSUER or claims["aud"] != self._audience:
            raise InvalidTokenError("The token is for another audience or from another issuer.")
        if type(claims["partial"]) is not bool:
            raise InvalidTokenError("A claim of the token has the wrong type.")
        issued, ends, signed_in = claims["iat"], claims["exp"], claims["auth_time"]
        if not all(type(moment) is int for moment in (issued, ends, signed_in)):
            raise InvalidTokenError("The token's times are not integers.")
        now = self.now()
        if (
            max(issued, signed_in) > now + SKEW_SECONDS
            or not 0 < ends - issued <= LIFETIME.total_seconds()
        ):
            raise InvalidTokenError(
                "The token is issued in the future or its lifetime is too long."
            )
        if now >= ends:
            raise InvalidTokenError("The token has expired.")

    def _remember(self, digest: bytes, known: tuple[float, str, User]) -> None:
        self._verified[digest] = known
        while len(self._verified) > _MOST_CACHED:
            self._verified.popitem(last=False)


class RemoteKeys:
    """The key set that Auth publishes, fetched on demand.

    A key set is used for a minute, or up to ``stale_seconds`` while Auth is unavailable. An unknown
    key id triggers a fetch at once, at most once a second.
    """

    fresh_seconds = 60.0
    stale_seconds = 300.0

    def __init__(self, fetch: Callable[[], Awaitable[bytes]], now: Clock = time.monotonic) -> None:
        self._fetch = fetch
        self._now = now
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._refreshing = asyncio.Lock()

    async def get(self, kid: str) -> Ed25519PublicKey | None:
        """Return the key with the id *kid*; None if Auth does not publish it.

        Raises:
            UnavailableError: The key is unknown, and Auth's keys cannot be fetched.
        """
        if kid not in self._keys:
            # Concurrent callers wait for the same fetch.
            async with self._refreshing:
                await self._refresh_unless_just_tried(kid)
        elif self._now() - self._fetched_at > self.fresh_seconds and not self._refreshing.locked():
            async with self._refreshing:
                await self._refresh_unless_just_tried("")
        if self._now() - self._fetched_at > self.stale_seconds:
            self._keys.clear()
        found = self._keys.get(kid)
        if found is None and self._tried_at > self._fetched_at:
            # The token may be valid: rejecting it would sign the user out.
            raise UnavailableError("The keys of user tokens cannot be fetched from Auth.")
        return found

    async def _refresh_unless_just_tried(self, kid: str) -> None:
        if kid not in self._keys and self._now() - self._tried_at >= 1:
            await self._refresh()

    async def _refresh(self) -> None:
        tried_at = self._tried_at = self._now()
        try:
            self._keys = parse_key_set(await self._fetch())
        except (httpx.HTTPError, OSError, ValueError):
            return  # Auth is unavailable; the known keys stay valid for `stale_seconds`.
        self._fetched_at = tried_at


def fetch_over_http(url: str, socket: str | None) -> Callable[[], Awaitable[bytes]]:
    """Return a function that fetches *url*, over the Unix *socket* when one is given."""

    async def fetch() -> bytes:
        async with http_client(uds=socket, timeout=2) as client:
            answer = await client.get(url)
            answer.raise_for_status()
            return answer.content

    return fetch


def parse_key_set(document: bytes) -> dict[str, Ed25519PublicKey]:
    """Return the Ed25519 keys of a JSON Web Key Set by their id; ignore keys that are not valid.

    Raises:
        ValueError: The document is not a key set.

    Source:
        RFC 7517, section 5: keys of other types, or without required members, are ignored.
    """
    try:
        keys = json.loads(document)["keys"] if document else []
    except (KeyError, TypeError, RecursionError) as exc:
        raise ValueError("The document is not a key set.") from exc
    if not isinstance(keys, list):
        raise ValueError("The document is not a key set.")  # noqa: TRY004 - one kind of error
    found = {}
    for key in keys:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            if (key.get("kty"), key.get("crv")) == ("OKP", "Ed25519"):
                found[str(key["kid"])] = Ed25519PublicKey.from_public_bytes(_decode(key["x"]))
    return found


def _parse(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    parts = token.split(".")
    if len(parts) != 3 or len(token) > 4096:
        raise InvalidTokenError("The token is not a JWT.")
    try:
        header, claims = (_strict_json(_decode(part)) for part in parts[:2])
        signature = _decode(parts[2])
    except (ValueError, RecursionError) as exc:
        raise InvalidTokenError("The token is not a JWT.") from exc
    return header, claims, f"{parts[0]}.{parts[1]}".encode(), signature


def _strict_json(data: bytes) -> dict[str, Any]:
    value = json.loads(data, object_pairs_hook=_unique)
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one kind of error for all malformed text
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    if not _BASE64.fullmatch(text):
        raise ValueError("not base64url")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as exc:
        raise ValueError("not base64url") from exc
    if _encode(data) != text:
        raise ValueError("not the shortest base64url")
    return data
