"""
Create or repair the virtual environment of a checkout.

``make`` runs this file with whatever Python it finds, before anything is installed, so it needs
the standard library only and nothing newer than Python 3.8. It does nothing if the environment
already matches the lock.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
STAMP = VENV / ".installed"
PYTHON = VENV / "bin" / "python"
OLDEST = (3, 11)
NEWEST = (3, 14)
LOCKS = {False: ROOT / "requirements.lock", True: ROOT / "requirements-dev.lock"}
"""Lock files, by whether development tools are included."""

# pip reads these from its configuration files, PIP_* variables and command line; uv reads its own
# variables only. Behind a company proxy or CA the same settings must serve both.
UV_VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}


def main() -> None:
    """Make ``.venv`` match the lock, and print what was done."""
    parser = argparse.ArgumentParser(description="Create or repair .venv from the lock.")
    parser.add_argument(
        "--dev", action="store_true", help="also install the tools for checks and tests"
    )
    parser.add_argument("--python", help="interpreter to use; default: the newest supported one")
    parser.add_argument(
        "--list", action="store_true", help="only print each supported Python found, and its path"
    )
    options = parser.parse_args()
    if options.list:
        for minor in range(OLDEST[1], NEWEST[1] + 1):
            candidate = _find(f"3.{minor}")
            if candidate:
                print(_version_of(candidate), candidate)
        return
    found = _state()
    asked = options.python and _resolved(options.python)
    if _is_current(found, asked, dev=options.dev):
        return
    dev = options.dev or bool(found.get("dev"))
    interpreter, version = _interpreter(asked, found)
    print(f"Using Python {version} ({interpreter}) for .venv", flush=True)
    if not found and VENV.exists():
        print("The environment in .venv is incomplete or was moved: creating it again", flush=True)
    if not found or found["version"] != version:
        shutil.rmtree(VENV, ignore_errors=True)
        _run(interpreter, "-m", "venv", str(VENV), why="create .venv")
    STAMP.unlink(missing_ok=True)  # an interrupted installation starts from scratch next time
    print("Installing into .venv …", flush=True)
    _install(LOCKS[dev])
    STAMP.write_text(json.dumps({**_wanted(dev=dev), "version": version}))


def _state() -> dict[str, Any]:
    """Return the content of the stamp; empty if the environment is missing, broken or moved."""
    try:
        found = json.loads(STAMP.read_text())
        whole = found["root"] == str(ROOT) and subprocess.run(
            [str(PYTHON), "-c", "import pip"], stderr=subprocess.DEVNULL, check=False
        )
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if whole and whole.returncode == 0 else {}


def _wanted(*, dev: bool) -> dict[str, Any]:
    described = LOCKS[dev].read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    return {"root": str(ROOT), "dev": dev, "lock": hashlib.sha256(described).hexdigest()}


def _is_current(found: dict[str, Any], python: str | None, *, dev: bool) -> bool:
    if not found or (dev and not found["dev"]):
        return False
    if python and _version_of(python) != found["version"]:
        return False
    return bool(_wanted(dev=found["dev"])["lock"] == found["lock"])


def _interpreter(asked: str | None, found: dict[str, Any]) -> tuple[str, str]:
    """Return the requested or the newest interpreter, with its version."""
    if asked:
        version = _version_of(asked)
        if version is None:
            _fail(
                f"{asked} is not a Python with venv and ensurepip. Pass another one: make PYTHON=…"
            )
        if not OLDEST <= _minor(version) <= NEWEST:
            _fail(f"{asked} is Python {version}; {_range()} is needed.")
        return asked, version
    if found:
        return str(PYTHON), str(found["version"])
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        candidate = _find(f"3.{minor}")
        if candidate:
            return candidate, str(_version_of(candidate))
    _fail(
        f"{_range()} with venv is needed, and none was found (tried python3.{NEWEST[1]} to "
        f"python3.{OLDEST[1]} and python3). Install one (Debian: apt install python3-venv), or "
        "name one: make PYTHON=…"
    )


def _resolved(asked: str) -> str:
    """Return *asked*, or where the version that it names (``python3.12``, ``3.12``) was found."""
    named = re.fullmatch(r"(?:python)?(3[.][0-9]+)", asked)
    return (named and _find(named[1])) or asked


def _find(version: str) -> str | None:
    """Return the command of a Python *version* (``3.12``) that can create environments."""
    for candidate in _candidates(version):
        found = _version_of(candidate)
        if found is not None and _minor(found) == _minor(f"{version}.0"):
            return candidate
    return None


def _candidates(version: str) -> list[str]:
    """Return candidate commands for Python *version*: on PATH, then among pyenv's versions."""
    pyenv = Path(os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))) / "versions"
    kept = sorted(pyenv.glob(f"{version}*/bin/python{version}"), reverse=True)
    named = [shutil.which(f"python{version}"), shutil.which("python3"), *map(str, kept)]
    return [candidate for candidate in named if candidate]


def _version_of(python: str) -> str | None:
    """Return the version, or None if this is not a Python that can create environments."""
    ask = "import ensurepip, platform, venv; print(platform.python_version())"
    try:
        # A pyenv shim of an inactive version exists and fails.
        done = subprocess.run(
            [python, "-c", ask], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _range() -> str:
    return f"Python {OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"


def _install(lock: Path) -> None:
    # uv is in the lock too: pip installs only uv and uv installs the rest, in seconds instead of a
    # minute. If there is no uv for this machine, pip installs everything.
    pip = [str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    uv = str(VENV / "bin" / "uv")
    alone = VENV / "uv.lock"
    alone.write_text(_entry(lock.read_text(), "uv"))
    settings = {**os.environ, **_uv_settings()}
    quick = _succeeds([*pip, "--require-hashes", "-r", str(alone)]) and _succeeds(
        [uv, "pip", "sync", "-q", "--require-hashes", "--python", str(PYTHON), str(lock)],
        settings,
    )
    if not quick:
        print("uv failed; installing with pip, which takes a minute or two.", flush=True)
        _run(*pip, "--require-hashes", "-r", str(lock), why=f"install {lock.name}")
    _run(str(PYTHON), str(ROOT / "protos" / "generate.py"), why="generate code from the contracts")
    _run(*pip, "--no-build-isolation", "-e", str(ROOT), why="install the project")


def _entry(lock: str, name: str) -> str:
    """Return the lines of *lock* that pin *name*, hashes included."""
    lines = lock.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{name}=="))
    end = next((i for i in range(start, len(lines)) if not lines[i].endswith("\\")), start)
    return "\n".join(lines[start : end + 1]) + "\n"


def _uv_settings() -> dict[str, str]:
    """Return pip's configuration as variables for uv; existing uv variables take precedence."""
    listed = subprocess.run(
        [str(PYTHON), "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    entries = [line.partition("=") for line in listed.stdout.splitlines()]
    # As in pip, variables override the section for `pip install`, which overrides the global one.
    entries.sort(key=lambda entry: (entry[0].startswith(":env:"), entry[0].startswith("install.")))
    settings = {}
    for key, _, value in entries:
        variable = UV_VARIABLES.get(key.rpartition(".")[2])
        if variable and variable not in os.environ:
            settings[variable] = " ".join(value.strip("'\"").replace("\\n", " ").split())
    return settings


def _succeeds(command: list[str], environment: dict[str, str] | None = None) -> bool:
    try:
        return subprocess.run(command, env=environment, check=False).returncode == 0
    except OSError:
        return False


def _run(*command: str, why: str) -> None:
    if not _succeeds(list(command)):
        _fail(f"Could not {why}; the messages above say why. Failed command: {' '.join(command)}")


def _fail(message: str) -> NoReturn:
    sys.exit(message)


if __name__ == "__main__":
    main()
