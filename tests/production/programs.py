"""
Third-party programs of the production tests, and the resource definitions that manifests use.

    python -m tests.production.programs [GROUP ...]    # `make programs`: complete build/programs

They come from the folder ``AMARRE_PROGRAMS``, else from ``build/programs``, which is filled from an
archive beside the project where there is one, else built from the Go modules of ``programs.toml``.
"""

import fcntl
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.production import builds

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = "AMARRE_PROGRAMS"
CACHE = ROOT.parent / "shared" / "production" / "cache"
"""Archives of built programs, ``GROUP.tar.xz``."""
BUILT = ROOT / "build" / "programs"
PINS: dict[str, Any] = tomllib.loads(Path(__file__).with_name("programs.toml").read_text())
CLUSTER, TELEMETRY, TERRAFORM = "cluster", "telemetry", "terraform"
UNPACK_SECONDS = 600


class MissingProgramsError(Exception):
    """Programs are missing and cannot be built; the message says what to do."""


def path(name: str) -> Path:
    """Return the path of a program, or where it would be."""
    given = os.environ.get(VARIABLE)
    chosen = Path(given) / name if given else None
    return chosen if chosen and chosen.exists() else BUILT / name


def program(name: str) -> str:
    """Return the path of a program as the first word of a command."""
    return str(path(name))


def find(group: str, *, build: bool = False) -> None:
    """
    Make the programs of *group* available to `path`.

    Args:
        group: ``cluster``, ``telemetry`` or ``terraform``.
        build: Build those that no archive has, which may take half an hour.

    Raises:
        MissingProgramsError: Some are missing, or cannot be built.
    """
    with _alone(group):
        _unpack(group)
        try:
            if build:
                _build(group)
            if group == CLUSTER and not _missing(group) and not _has_definitions():
                builds.copy_definitions(PINS, BUILT)
        except builds.BuildError as error:
            raise MissingProgramsError(
                f"The programs of {group} are incomplete. {error}"
            ) from error
    if missing := _missing(group):
        raise MissingProgramsError(
            f"The programs {', '.join(missing)} are missing; build them with make programs, or set "
            f"{VARIABLE} to a folder that has them."
        )


def _missing(group: str) -> list[str]:
    names = [name for how in PINS["programs"][group].values() for name in how["packages"]]
    return [name for name in names if not path(name).exists()]


def _has_definitions() -> bool:
    return path(builds.DEFINITIONS).exists() and path(builds.CHARTS).exists()


def _unpack(group: str) -> None:
    archive = CACHE / f"{group}.tar.xz"
    if _missing(group) and archive.is_file():
        # An interruption leaves no half of a program.
        with TemporaryDirectory(dir=BUILT) as part:
            command = ["tar", "-xJf", str(archive), "-C", part]
            subprocess.run(command, check=True, timeout=UNPACK_SECONDS)
            for file in Path(part).iterdir():
                file.replace(BUILT / file.name)


def _build(group: str) -> None:
    for module, how in PINS["programs"][group].items():
        if set(how["packages"]) & set(_missing(group)):
            builds.build(PINS, module, BUILT)


@contextmanager
def _alone(group: str) -> Iterator[None]:
    """Prevent two processes from completing the same group at once."""
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / f".{group}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        for one in sys.argv[1:] or PINS["programs"]:
            find(one, build=True)
    except MissingProgramsError as missing:
        sys.exit(str(missing))
    sys.stdout.write(f"{BUILT}\n")
