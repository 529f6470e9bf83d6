"""The secrets of an installation with Compose: created, complete, and readable by their readers."""

import os
import stat
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from mesh.deploy import compose_secrets
from mesh.render import compose
from mesh.render.readers import owners
from mesh.render.rules import alertmanager

Content = dict[str, Any]
FILES = compose.render()
CONTENT: Content = yaml.safe_load(FILES["compose.yaml"])
OWNERS = owners()
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change owners")


class TestEngine:
    @pytest.mark.parametrize(
        ("api", "compose_version", "said"),
        [
            ("1.41", "2.26.1", "Docker's API is 1.41; the stack needs 1.42 or newer."),
            ("1.45", "v2.17.3", "Docker Compose is 2.17.3; the stack needs 2.20 or newer."),
            ("1.45", "2.26.1", ""),
            ("", "", ""),
        ],
        ids=["old engine", "old Compose", "new enough", "not running"],
    )
    def test_version(self, tmp_path: Path, api: str, compose_version: str, said: str) -> None:
        """
        An engine or a Compose that is too old is reported in one sentence before anything is
        created.
        """
        docker = tmp_path / "docker"
        docker.write_text(
            f'#!/bin/sh\n[ -n "{api}" ] || exit 1\n'
            f'[ "$1" = version ] && echo {api} || echo {compose_version}\n'
        )
        docker.chmod(0o755)
        done = subprocess.run(
            [sys.executable, compose_secrets.__file__, "--sandbox", str(tmp_path / "secrets")],
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )

        assert said in done.stderr
        assert bool(said) is not (tmp_path / "secrets").exists()


class TestSecrets:
    def test_new_installation(self, tmp_path: Path) -> None:
        """
        Every secret that Compose declares is created, or the output names the file to add.
        """
        made = set(compose_secrets.make(tmp_path / "secrets"))
        wanted = set(compose_secrets.missing(tmp_path / "secrets"))

        assert set(CONTENT["secrets"]) <= made | wanted
        assert {"redcap-token", "smtp-password", "alertmanager/webhook-token"} <= wanted

    def test_trial(self, tmp_path: Path) -> None:
        """
        For testing with the sandbox, nothing is left for the operator to add.
        """
        compose_secrets.make(tmp_path, sandbox=True)

        assert {} == compose_secrets.missing(tmp_path)
        assert set(OWNERS) <= {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")}

    def test_alertmanager(self, tmp_path: Path) -> None:
        """
        Every secret file in Alertmanager's configuration is required, and the chat's is a URL,
        since Alertmanager rejects anything else at each alert.
        """
        compose_secrets.make(tmp_path, sandbox=True)
        words = set(alertmanager.render()["alertmanager.yaml"].split())
        named = {PurePosixPath(word).name for word in words if "/secrets/" in word}

        assert named == {p.name for p in (tmp_path / "alertmanager").iterdir()}
        assert (tmp_path / "alertmanager/slack-url").read_text().startswith("http")

    def test_second_run(self, tmp_path: Path) -> None:
        """
        Existing files are kept.
        """
        compose_secrets.make(tmp_path)
        before = {p.name: p.read_text() for p in tmp_path.iterdir()}

        assert [] == compose_secrets.make(tmp_path)
        assert before == {p.name: p.read_text() for p in tmp_path.iterdir()}

    def test_they_fit_together(self, tmp_path: Path) -> None:
        """
        URLs contain the passwords that the servers are given.
        """
        compose_secrets.make(tmp_path)

        def read(name: str) -> str:
            return (tmp_path / name).read_text()

        assert f"auth:{read('postgres-auth-password')}@" in read("amarre_auth_database")
        assert f"survey:{read('postgres-survey-password')}@" in read("amarre_survey_store")
        assert f":{read('redis.conf').split()[1]}@redis" in read("amarre_survey_cache")

    @needs_root
    def test_owners(self, tmp_path: Path) -> None:
        """
        Each file belongs to its reader and only its reader can read it.
        """
        compose_secrets.make(tmp_path, sandbox=True)
        compose_secrets.give(tmp_path)

        for name, reader in OWNERS.items():
            found = (tmp_path / name).stat()
            assert (reader.uid, reader.gid, 0o400) == (
                found.st_uid,
                found.st_gid,
                stat.S_IMODE(found.st_mode),
            ), name

    @needs_root
    def test_edge_certificate(self, tmp_path: Path) -> None:
        """
        The edge's certificate is behind the link that Envoy watches; a new one changes the link,
        the same one does not.
        """
        compose_secrets.make(tmp_path, sandbox=True)
        links = []
        for renew in (False, False, True):
            if renew:
                for file in ("tls.crt", "tls.key"):
                    (tmp_path / "edge" / file).unlink()
                compose_secrets.make(tmp_path, sandbox=True)
            compose_secrets.give(tmp_path)
            links.append((tmp_path / "edge/..data").readlink())
            for file in ("tls.crt", "tls.key"):
                text = (tmp_path / "edge" / file).read_text()
                assert text == (tmp_path / "edge/..data" / file).read_text()

        assert links[0] == links[1] != links[2]

    @needs_root
    def test_wrong_key(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """
        A key that does not match the certificate is reported, and nothing is published.
        """
        compose_secrets.make(tmp_path, sandbox=True)
        (tmp_path / "edge/tls.key").write_text((tmp_path / "auth-signing-key.pem").read_text())

        assert 2 == compose_secrets.main([str(tmp_path)])
        assert "is not the private key of" in capsys.readouterr().err
        assert not (tmp_path / "edge/..data").exists()

    def test_not_root(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Without the permission to change owners, it fails with one message and creates nothing.
        """
        monkeypatch.setattr("os.geteuid", lambda: 1000)

        assert 2 == compose_secrets.main([str(tmp_path)])
        assert "Run this as root" in capsys.readouterr().err
        assert [] == list(tmp_path.iterdir())

    def test_no_openssl(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Without openssl, it says so and creates nothing.
        """
        monkeypatch.setattr("os.geteuid", lambda: 0)
        monkeypatch.setenv("PATH", "")

        assert 2 == compose_secrets.main([str(tmp_path)])
        assert "openssl is missing" in capsys.readouterr().err
        assert [] == list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("files", "said"),
        [
            ({"redcap-token": " \n"}, "redcap-token is empty"),
            ({"smtp-password/old": "x"}, "smtp-password is not a file"),
            ({"edge/tls.crt": "x", "edge/tls.key": "y"}, "tls.crt cannot be read as PEM"),
        ],
        ids=["empty", "folder", "not a certificate"],
    )
    def test_unusable_file(
        self,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        files: dict[str, str],
        said: str,
    ) -> None:
        """
        A file that cannot be used is named in one sentence before anything is created.
        """
        monkeypatch.setattr("os.geteuid", lambda: 0)
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)

        assert 2 == compose_secrets.main([str(tmp_path)])
        error = capsys.readouterr().err
        assert said in error
        assert 1 == len(error.splitlines())
        assert set(files) == {
            p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()
        }

    def test_bare_host(self, tmp_path: Path) -> None:
        """
        It runs on a host with only Python and openssl, by its path.
        """
        program = [sys.executable, "-I", "-S", compose_secrets.__file__, "--sandbox", str(tmp_path)]
        done = subprocess.run(program, capture_output=True, text=True, check=False)

        assert (0 if os.geteuid() == 0 else 2) == done.returncode, done.stderr
