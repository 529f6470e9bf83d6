"""The virtual environment of a checkout is created, kept or recreated."""

import json
import os
import shutil
import sys
import venv
from pathlib import Path

import pytest

from mesh.local import bootstrap

VERSION = "3.11.7"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with pip, to copy."""
    path = tmp_path_factory.mktemp("environment") / ".venv"
    venv.create(path, with_pip=True, symlinks=True)
    return path


@pytest.fixture
def checkout(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a complete, current environment, in which only pip is installed."""
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "pyproject.toml").write_text("[project]\n")
    for lock in bootstrap.LOCKS.values():
        (root / lock.name).write_text("uv==1 \\\n    --hash=sha256:00\n")
    look_at(root, monkeypatch)
    shutil.copytree(environment, root / ".venv", symlinks=True)
    stamp = {**bootstrap._wanted(dev=True), "version": VERSION}
    bootstrap.STAMP.write_text(json.dumps(stamp))
    return root


def look_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make *root* the checkout that the module works on."""
    monkeypatch.setattr(bootstrap, "ROOT", root)
    monkeypatch.setattr(bootstrap, "VENV", root / ".venv")
    monkeypatch.setattr(bootstrap, "STAMP", root / ".venv/.installed")
    monkeypatch.setattr(bootstrap, "PYTHON", root / ".venv/bin/python")
    locks = {dev: root / lock.name for dev, lock in bootstrap.LOCKS.items()}
    monkeypatch.setattr(bootstrap, "LOCKS", locks)


class TestState:
    """Which environments are trusted."""

    def test_whole(self, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A complete environment is current for `make up` and for `make test`."""
        found = bootstrap._state()

        assert VERSION == found["version"]
        assert bootstrap._is_current(found, None, dev=False)
        assert bootstrap._is_current(found, None, dev=True)

    def test_lock_changed(self, checkout: Path) -> None:
        """A changed lock is installed into the same environment."""
        (checkout / "requirements-dev.lock").write_text("uv==2\n")
        found = bootstrap._state()

        assert found
        assert not bootstrap._is_current(found, None, dev=False)

    def test_moved(self, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A moved or copied checkout does not run the code of the other one."""
        moved = checkout.with_name("moved")
        shutil.move(checkout, moved)
        look_at(moved, monkeypatch)

        assert {} == bootstrap._state()

    def test_without_pip(self, checkout: Path) -> None:
        """An environment without pip is incomplete."""
        for package in checkout.glob(".venv/lib/python*/site-packages/pip"):
            shutil.rmtree(package)

        assert {} == bootstrap._state()

    @pytest.mark.parametrize("stamp", ["", "{}", "[]", "null"])
    def test_stamp_unreadable(self, checkout: Path, stamp: str) -> None:
        """A stamp from an interrupted or older installation is ignored."""
        bootstrap.STAMP.write_text(stamp)

        assert {} == bootstrap._state()


class TestInterpreter:
    """Which Python is used."""

    def test_newest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The newest supported version is used, and a failing command is skipped."""
        versions = {"shim": None, "old": "3.11.2", "new": "3.13.1"}
        monkeypatch.setattr(bootstrap, "_candidates", lambda version: list(versions))
        monkeypatch.setattr(bootstrap, "_version_of", versions.get)

        assert ("new", "3.13.1") == bootstrap._interpreter(None, {})

    def test_list(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """CI lists each supported minor version on the machine, oldest first."""
        versions = {"shim": None, "old": "3.10.4", "new": "3.13.1", "middle": "3.11.2"}
        monkeypatch.setattr(bootstrap, "_candidates", lambda version: list(versions))
        monkeypatch.setattr(bootstrap, "_version_of", versions.get)
        monkeypatch.setattr("sys.argv", ["bootstrap.py", "--list"])

        bootstrap.main()

        assert "3.11.2 middle\n3.13.1 new\n" == capsys.readouterr().out

    @pytest.mark.parametrize("asked", ["python3.12", "3.12"])
    def test_named_version(self, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
        """A version is found among pyenv's even if the command on PATH is an inactive shim."""
        monkeypatch.setattr(bootstrap, "_candidates", lambda _: ["shim", "versions/3.12.1"])
        monkeypatch.setattr(bootstrap, "_version_of", {"versions/3.12.1": "3.12.1"}.get)

        assert "versions/3.12.1" == bootstrap._resolved(asked)

    @pytest.mark.parametrize("asked", ["python3.9", "../python", "pypy"])
    def test_other_command(self, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
        """A command that names no version found is used as it is."""
        monkeypatch.setattr(bootstrap, "_candidates", lambda _: [])

        assert asked == bootstrap._resolved(asked)

    def test_unsupported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A version that is too old is rejected by name."""
        monkeypatch.setattr(bootstrap, "_version_of", lambda python: "3.10.4")

        with pytest.raises(SystemExit, match=r"python3\.10 is Python 3\.10\.4; .* is needed"):
            bootstrap._interpreter("python3.10", {})

    def test_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a supported Python, the message says what to install."""
        monkeypatch.setattr(bootstrap, "_candidates", lambda version: [])

        with pytest.raises(SystemExit, match="make PYTHON="):
            bootstrap._interpreter(None, {})

    def test_not_python(self, tmp_path: Path) -> None:
        """A pyenv shim of an inactive version exists but fails."""
        shim = tmp_path / "python3.12"
        shim.write_text("#!/bin/sh\nexit 127\n")
        shim.chmod(0o755)

        assert bootstrap._version_of(str(shim)) is None
        assert bootstrap._version_of(sys.executable) == ".".join(map(str, sys.version_info[:3]))


def test_settings_of_pip_reach_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv uses the index, proxy and CA that pip is configured with."""
    configuration = tmp_path / "pip.conf"
    configuration.write_text(
        "[global]\n"
        "index-url = https://packages.example.org/simple\n"
        "extra-index-url =\n    https://one.example.org/simple\n    https://two.example.org/simple\n"
        "proxy = http://proxy.example.org:3128\n"
    )
    for name in [n for n in os.environ if n.startswith(("PIP_", "UV_")) or n == "SSL_CERT_FILE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("PIP_CERT", "/etc/company-ca.pem")
    monkeypatch.setattr(bootstrap, "PYTHON", Path(sys.executable))

    found = bootstrap._uv_settings()

    assert {
        "UV_DEFAULT_INDEX": "https://packages.example.org/simple",
        "UV_INDEX": "https://one.example.org/simple https://two.example.org/simple",
        "ALL_PROXY": "http://proxy.example.org:3128",
        "SSL_CERT_FILE": "/etc/company-ca.pem",
    }.items() <= found.items()


def test_settings_of_uv_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables set for uv take precedence."""
    monkeypatch.setenv("PIP_INDEX_URL", "https://packages.example.org/simple")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://other.example.org/simple")
    monkeypatch.setattr(bootstrap, "PYTHON", Path(sys.executable))

    assert "UV_DEFAULT_INDEX" not in bootstrap._uv_settings()


def test_entry_of_the_lock() -> None:
    """Only the pin of one package is extracted, with its hashes."""
    entry = "uv==2 \\\n    --hash=sha256:22 \\\n    --hash=sha256:33\n"

    assert entry == bootstrap._entry(f"a==1 \\\n    --hash=sha256:11\n{entry}z==3\n", "uv")
