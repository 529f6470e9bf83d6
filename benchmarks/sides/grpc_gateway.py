"""Go's grpc-gateway, generated from our contracts and built into ``build/grpc-gateway``.

``go/go.mod`` and ``go/go.sum`` pin the generators and the runtime. To change a version, run
``go get MODULE@VERSION`` in the built folder and copy both files back.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from google.protobuf import descriptor_pb2

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).parent / "go"
CONTRACTS = ROOT / "protos/gen/amarre/contract.binpb"
BUILT = ROOT / "build/grpc-gateway"
ABSENT = "Go is not installed, so that grpc-gateway was left out."
_MODULE = "benchmarks"
_GENERATORS = (
    "github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway",
    "google.golang.org/grpc/cmd/protoc-gen-go-grpc",
    "google.golang.org/protobuf/cmd/protoc-gen-go",
)
_BUILD_SECONDS = 600


class BuildError(Exception):
    """grpc-gateway cannot be built; the message says which command failed and why."""


def build() -> Path | None:
    """Return the program, built unless it is up to date; None where Go is absent.

    Raises:
        BuildError: A command failed.
    """
    program, stamp = BUILT / "grpc-gateway", BUILT / "sources.sha256"
    sources = _digest()
    if program.exists() and stamp.exists() and stamp.read_text() == sources:
        return program
    if shutil.which("go") is None:
        return None
    BUILT.mkdir(parents=True, exist_ok=True)
    for file in SOURCE.iterdir():
        shutil.copyfile(file, BUILT / file.name)
    _run("go", "build", "-o", "bin/", *_GENERATORS)
    _generate()
    _run("go", "build", "-trimpath", "-o", program.name, ".")
    stamp.write_text(sources)
    return program


def packages(contracts: descriptor_pb2.FileDescriptorSet) -> dict[str, str]:
    """Return the Go package of each contract; Google's own ones name theirs themselves."""
    names = (file.name for file in contracts.file if not file.name.startswith("google/"))
    return {name: f"{_MODULE}/gen/{name.rpartition('/')[0]}" for name in names}


def _generate() -> None:
    found = packages(descriptor_pb2.FileDescriptorSet.FromString(CONTRACTS.read_bytes()))
    options = [f"module={_MODULE}", *(f"M{file}={package}" for file, package in found.items())]
    arguments = [
        *(f"--plugin={BUILT / 'bin' / name.rpartition('/')[2]}" for name in _GENERATORS),
        f"--descriptor_set_in={CONTRACTS}",
    ]
    for kind in ("go", "go-grpc", "grpc-gateway"):
        arguments += [f"--{kind}_out={BUILT}", f"--{kind}_opt={','.join(options)}"]
    _run(sys.executable, "-m", "grpc_tools.protoc", *arguments, *found)


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        cwd=BUILT,
        env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"},
        capture_output=True,
        text=True,
        timeout=_BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        raise BuildError(f"{' '.join(command)} failed: {done.stderr.strip()[-400:]}")


def _digest() -> str:
    files = [CONTRACTS, *sorted(SOURCE.iterdir())]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
