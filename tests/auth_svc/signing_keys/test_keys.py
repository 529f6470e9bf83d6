"""Signing keys: created once, private, rotated without a gap, published."""

import asyncio
import os
import stat
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from auth_svc.signing_keys import jwks_endpoint
from auth_svc.signing_keys.jwks_endpoint import PATH, serve_key_set
from auth_svc.signing_keys.key_ring import KeyRing, load_or_make, to_pem
from mesh.chassis.credentials.secret_files import SecretFileError
from mesh.chassis.server import StartError
from mesh.chassis.testing import free_port
from mesh.chassis.tokens import RemoteKeys, SigningKey, fetch_over_http


def replace(path: Path, *keys: SigningKey) -> None:
    path.touch(0o600)
    path.write_bytes(b"".join(to_pem(key) for key in keys))
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


class TestFile:
    def test_made_where_absent(self, tmp_path: Path) -> None:
        """A missing file is created, readable only by this user, and reused."""
        path = tmp_path / "secrets" / "key.pem"

        (made,) = load_or_make(path)
        (found,) = load_or_make(path)

        assert made.kid == found.kid
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)
        assert [path] == list(path.parent.iterdir())

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"no key",
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            ),
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ],
        ids=["empty", "text", "another kind", "broken"],
    )
    def test_refused(self, tmp_path: Path, content: bytes) -> None:
        """A file with other keys than Ed25519 stops the start with the name of the setting."""
        path = tmp_path / "key.pem"
        path.touch(0o600)
        path.write_bytes(content)

        with pytest.raises((StartError, SecretFileError), match="AMARRE_AUTH_SIGNING_KEY_FILE"):
            load_or_make(path)

    def test_empty_file(self, tmp_path: Path) -> None:
        """The error for an empty file has a command that creates a key of the right kind."""
        path = tmp_path / "key.pem"
        path.touch(0o600)

        with pytest.raises(SecretFileError, match="openssl genpkey -algorithm ed25519 > "):
            load_or_make(path)

    def test_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        """A path below a file stops the start with the name of the setting."""
        (tmp_path / "file").write_text("")

        with pytest.raises(StartError, match="AMARRE_AUTH_SIGNING_KEY_FILE"):
            load_or_make(tmp_path / "file" / "key.pem")


class TestRotation:
    def test_two_keys(self, tmp_path: Path) -> None:
        """The first key of the file signs, all are published; changes are reloaded."""
        path = tmp_path / "key.pem"
        old, new = SigningKey.generate(), SigningKey.generate()
        replace(path, old)
        ring = KeyRing(path)

        replace(path, old, new)
        assert ring.refresh()
        assert old.kid == ring.signing().kid
        assert {"keys": [old.jwk(), new.jwk()]} == ring.document()

        replace(path, new, old)
        assert ring.refresh()
        assert new.kid == ring.signing().kid

        replace(path, new)
        assert ring.refresh()
        assert not ring.refresh()
        assert {"keys": [new.jwk()]} == ring.document()

    def test_bad_file_changes_nothing(self, tmp_path: Path) -> None:
        """A file that becomes invalid leaves the keys unchanged."""
        path = tmp_path / "key.pem"
        ring = KeyRing(path)
        before = ring.signing().kid

        path.write_bytes(b"no key")
        os.utime(path, ns=(1, 1))
        assert not ring.refresh()
        path.unlink()
        assert not ring.refresh()

        assert before == ring.signing().kid


class TestPublished:
    async def test_unix_socket(self, tmp_path: Path) -> None:
        """Verifiers fetch the key set over a Unix socket, which is removed afterwards."""
        ring = KeyRing(tmp_path / "key.pem")
        path = tmp_path / "keys.sock"

        async with serve_key_set(f"unix:{path}", ring.document):
            keys = RemoteKeys(fetch_over_http(f"http://auth{PATH}", str(path)))
            assert await keys.get(ring.signing().kid) is not None
            assert await keys.get("another") is None
        assert not path.exists()

    async def test_replicas_share_a_socket(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When the replica that serves the shared socket stops, another one takes over."""
        ring = KeyRing(tmp_path / "key.pem")
        path = tmp_path / "keys.sock"
        monkeypatch.setattr(jwks_endpoint, "CLAIM_SECONDS", 0.01)

        async with serve_key_set(f"unix:{path}", ring.document):
            monkeypatch.setattr(os, "getpid", lambda: 1)
            async with serve_key_set(f"unix:{path}", ring.document):
                assert path.readlink().name == "keys.sock.1"
            monkeypatch.undo()
            fetch = fetch_over_http(f"http://auth{PATH}", str(path))
            async with asyncio.timeout(5):
                while not path.exists():
                    await asyncio.sleep(0.01)
            assert await RemoteKeys(fetch).get(ring.signing().kid) is not None

    async def test_port(self, tmp_path: Path) -> None:
        """Verifiers fetch the key set over TCP as well; it may be cached for a minute."""
        ring = KeyRing(tmp_path / "key.pem")
        listen = f"127.0.0.1:{free_port()}"

        async with (
            serve_key_set(listen, ring.document),
            httpx.AsyncClient(trust_env=False) as client,
        ):
            answer = await client.get(f"http://{listen}{PATH}")

        assert "max-age=60" == answer.headers["cache-control"]
        assert ring.document() == answer.json()
        assert {"kty", "crv", "alg", "use", "kid", "x"} == set(answer.json()["keys"][0])

    @pytest.mark.parametrize("listen", ["", "127.0.0.1", "127.0.0.1:99999", "unix:/proc/x/y.sock"])
    async def test_cannot_be_bound(self, listen: str) -> None:
        """An address that cannot be bound stops the start with the name of the setting."""
        with pytest.raises(StartError, match="AMARRE_AUTH_KEY_SET_LISTEN"):
            async with serve_key_set(listen, dict):
                pass
