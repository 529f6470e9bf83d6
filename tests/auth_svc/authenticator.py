"""A software authenticator: responds to WebAuthn options like a browser with a passkey."""

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url, encode_cbor

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40
ORIGIN, PARTY = "http://localhost:3000", "localhost"


@dataclass
class Authenticator:
    """One passkey; its attributes can be made invalid on purpose."""

    origin: str = ORIGIN
    party: str = PARTY
    flags: int = PRESENT | VERIFIED
    count: int = 0
    counts: bool = False
    id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    user_handle: str = ""

    def create(self, options_json: str) -> str:
        """Respond to the options of a registration."""
        options = json.loads(options_json)
        self.user_handle = options["user"]["id"]
        data = self._data(self.flags | ATTESTED)
        data += bytes(16) + len(self.id).to_bytes(2, "big") + self.id + encode_cbor(self._cose())
        attestation = encode_cbor({"fmt": "none", "attStmt": {}, "authData": data})
        client = self._client("webauthn.create", options["challenge"])
        return self._answer(
            clientDataJSON=bytes_to_base64url(client),
            attestationObject=bytes_to_base64url(attestation),
        )

    def get(self, options_json: str) -> str:
        """Respond to the options of a sign-in."""
        self.count += self.counts
        data = self._data(self.flags)
        client = self._client("webauthn.get", json.loads(options_json)["challenge"])
        signed = data + hashlib.sha256(client).digest()
        return self._answer(
            clientDataJSON=bytes_to_base64url(client),
            authenticatorData=bytes_to_base64url(data),
            signature=bytes_to_base64url(self.key.sign(signed, ec.ECDSA(SHA256()))),
            userHandle=self.user_handle,
        )

    def _data(self, flags: int) -> bytes:
        party = hashlib.sha256(self.party.encode()).digest()
        return party + bytes([flags]) + self.count.to_bytes(4, "big")

    def _client(self, kind: str, challenge: str) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin}).encode()

    def _cose(self) -> dict[int, Any]:
        numbers = self.key.public_key().public_numbers()
        x, y = (number.to_bytes(32, "big") for number in (numbers.x, numbers.y))
        return {1: 2, 3: -7, -1: 1, -2: x, -3: y}

    def _answer(self, **response: str) -> str:
        name = bytes_to_base64url(self.id)
        shown = {"id": name, "rawId": name, "type": "public-key", "response": response}
        return json.dumps({**shown, "clientExtensionResults": {}})


def challenge_of(options_json: str) -> bytes:
    """Return the challenge in the options."""
    return base64url_to_bytes(json.loads(options_json)["challenge"])
