"""Settings read from files, as in containers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.chassis import config
from mesh.chassis.config import MeshSettings, SettingsError
from mesh.chassis.credentials import secret_files
from mesh.chassis.credentials.secret_files import SecretFileError
from mesh.chassis.credentials.tls import FILES, SvidFiles, SvidFilesError
from mesh.chassis.telemetry.pseudonym import load_key


def test_file_in_place_of_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unset variable is read from the file of its name; a set variable takes precedence."""
    (tmp_path / "amarre_instance").write_text("survey-2\n")
    (tmp_path / "amarre_namespace").write_text("elsewhere")
    for file in tmp_path.iterdir():
        file.chmod(0o640)
    monkeypatch.setenv("AMARRE_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("AMARRE_NAMESPACE", "here")

    settings = config.load(MeshSettings)

    assert "survey-2" == settings.instance
    assert "here" == settings.namespace


def test_missing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing folder is an error at startup, not a set of missing variables."""
    monkeypatch.setenv("AMARRE_SECRETS_DIR", str(tmp_path / "none"))

    with pytest.raises(SettingsError, match=r"AMARRE_SECRETS_DIR holds .*does not exist"):
        config.load(MeshSettings)


class TestSecretFiles:
    """A secret is rejected with the name of its setting before a process listens."""

    @pytest.mark.parametrize("mode", [0o604, 0o644, 0o666, 0o601])
    def test_readable_by_everybody(self, tmp_path: Path, mode: int) -> None:
        """Any access for others on the machine is rejected."""
        file = tmp_path / "key"
        file.write_bytes(b"k" * 32)
        file.chmod(mode)
        with pytest.raises(SecretFileError, match=rf"A_KEY.*{mode:04o}"):
            secret_files.read("A_KEY", file)

    @pytest.mark.parametrize("mode", [0o400, 0o600, 0o440, 0o640])
    def test_private(self, tmp_path: Path, mode: int) -> None:
        """
        Owner and group may read, as with Kubernetes secrets; surrounding white space is stripped.
        """
        file = tmp_path / "key"
        file.write_bytes(b"k" * 32 + b"\n")
        file.chmod(mode)
        assert secret_files.read("A_KEY", file, least=32) == b"k" * 32

    def test_owned_by_another_user(self, tmp_path: Path) -> None:
        """A file of another user, who could replace it, is rejected; one of root or ours is not."""
        file = tmp_path / "key"
        file.write_bytes(b"k" * 32)
        file.chmod(0o640)
        owner = file.stat().st_uid
        with pytest.raises(SecretFileError, match=f"A_KEY.*belongs to user {owner + 7}.*chown"):
            secret_files.check_owner("A_KEY", file, owner + 7)
        for accepted in (0, owner):
            secret_files.check_owner("A_KEY", file, accepted)

    def test_not_text(self, tmp_path: Path) -> None:
        """A text secret that is not UTF-8 is rejected by name."""
        file = tmp_path / "key"
        file.write_bytes(b"\xff" * 32)
        file.chmod(0o600)
        with pytest.raises(SecretFileError, match=r"A_KEY.*UTF-8"):
            secret_files.read_text("A_KEY", file)

    @pytest.mark.parametrize("content", [b"", b"\n", b"k", b"k" * 15])
    def test_too_short(self, tmp_path: Path, content: bytes) -> None:
        """An empty secret and a pseudonym key of one byte are rejected."""
        file = tmp_path / "key"
        file.write_bytes(content)
        file.chmod(0o600)
        with pytest.raises(SecretFileError, match=r"AMARRE_PSEUDONYM_KEY_FILE.*at least 16"):
            load_key(file)

    def test_missing(self, tmp_path: Path) -> None:
        """A missing file, or a folder, is reported with its setting."""
        with pytest.raises(SecretFileError, match=r"AMARRE_PSEUDONYM_KEY_FILE.*none: No such"):
            load_key(tmp_path / "none")
        with pytest.raises(SecretFileError, match="is not a file"):
            load_key(tmp_path)

    def test_private_key_of_an_svid(self, tmp_path: Path, svids: Path) -> None:
        """A world-readable private key is rejected before TLS starts."""
        folder = tmp_path / "svid"
        folder.mkdir()
        for name in FILES:
            (folder / name).write_bytes((svids / "survey" / name).read_bytes())
        (folder / "tls.key").chmod(0o644)
        with pytest.raises(SvidFilesError, match=r"AMARRE_SVID_DIR.*chmod"):
            SvidFiles(folder).read()

    def test_secrets_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A world-readable setting in the secrets folder is rejected."""
        file = tmp_path / "amarre_instance"
        file.write_text("survey-2\n")
        file.chmod(0o644)
        monkeypatch.setenv("AMARRE_SECRETS_DIR", str(tmp_path))
        with pytest.raises(SettingsError, match=r"AMARRE_SECRETS_DIR.*amarre_instance"):
            config.load(MeshSettings)


def test_process_start(tmp_path: Path) -> None:
    """A process with an unusable key names it, exits with 2 and never listens."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "AMARRE_PSEUDONYM_KEY_FILE": str(tmp_path / "none"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.mesh.chassis.telemetry.process"],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "AMARRE_PSEUDONYM_KEY_FILE" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
