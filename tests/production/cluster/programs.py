"""
The programs of a control plane, and the resource definitions that the manifests use.

    python -m tests.production.cluster.programs    # `make programs`: put them into build/programs

They come from the folder ``AMARRE_PROGRAMS``, else from ``build/programs``, which is filled from an
archive beside the project where there is one, else built from the Go modules of ``programs.toml``.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
ARCHIVE = ROOT.parent / "shared/production/cache/cluster.tar.xz"
PINS: dict[str, Any] = tomllib.loads(Path(__file__).with_name("programs.toml").read_text())
NAMES = (
    *("etcd", "kube-apiserver", "kube-controller-manager"),
    *("pilot-discovery", "istioctl", "pilot-agent"),
)
CHARTS = "istio-manifests"
DEFINITIONS = "definitions"
BUILD_SECONDS = 3600


class ProgramsError(Exception):
    """The programs are missing and cannot be built; the message says what to do."""


@dataclass(frozen=True)
class Programs:
    """A folder with everything that the tests start or apply."""

    folder: Path

    def path(self, name: str) -> str:
        """Return the path of the program *name*."""
        return str(self.folder / name)

    @property
    def definitions(self) -> list[Path]:
        """Files with custom resource definitions."""
        return sorted((self.folder / DEFINITIONS).glob("*.y*ml"))

    @property
    def charts(self) -> Path:
        """The folder of Istio's charts."""
        return self.folder / CHARTS


def find() -> Programs:
    """
    Return the programs; download or build them if missing.

    Raises:
        ProgramsError: They cannot be had on this machine.
    """
    given = os.environ.get("AMARRE_PROGRAMS")
    folder = Path(given) if given else ROOT / "build" / "programs"
    if not _missing(folder):
        return Programs(folder)
    if given:
        raise ProgramsError(f"AMARRE_PROGRAMS={given} lacks {', '.join(_missing(folder))}.")
    folder.mkdir(parents=True, exist_ok=True)
    if ARCHIVE.is_file() and any(name in _missing(folder) for name in NAMES):
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(folder, filter="data")
    missing = _missing(folder)
    if missing and shutil.which("go") is None:
        raise ProgramsError(
            f"The cluster tests need {', '.join(missing)}: install Go to build them "
            "(make programs), or set AMARRE_PROGRAMS to a folder that has them."
        )
    if DEFINITIONS in missing or CHARTS in missing:
        _copy_definitions(folder)
    for module, packages in PINS["programs"].items():
        if any(_name(module, package) in missing for package in packages):
            _build(module, packages, folder)
    return Programs(folder)


def _missing(folder: Path) -> list[str]:
    return [name for name in (*NAMES, DEFINITIONS, CHARTS) if not (folder / name).exists()]


def _name(module: str, package: str) -> str:
    return "etcd" if "etcd" in module else package.rpartition("/")[2]


def _go(*arguments: str, cwd: Path, **variables: str) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"}
    done = subprocess.run(
        ["go", *arguments],
        cwd=cwd,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        raise ProgramsError(f"go {arguments[0]} failed: {done.stderr.strip()[-400:]}")
    return done.stdout


def _download(module: str, folder: Path) -> Path:
    """Return the folder of *module* in Go's cache, after checking its pinned checksum."""
    pin = PINS["modules"][module]
    found = json.loads(_go("mod", "download", "-json", f"{module}@{pin['version']}", cwd=folder))
    if found["Sum"] != pin["sum"]:
        raise ProgramsError(f"{module} {pin['version']} has the checksum {found['Sum']}.")
    return Path(found["Dir"])


def _copy_definitions(folder: Path) -> None:
    target = folder / f"{DEFINITIONS}.part"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for module, files in PINS["definitions"].items():
        source = _download(module, folder)
        for file in files:
            text = (source / file).read_text()
            # Lines of labels and annotations that only Helm can fill in.
            kept = [line for line in text.splitlines() if "{{" not in line]
            (target / Path(file).name).write_text("\n".join(kept) + "\n")
        if module == "istio.io/istio" and not (folder / CHARTS).exists():
            shutil.copytree(source / "manifests", folder / CHARTS, copy_function=shutil.copyfile)
            shutil.copyfile(
                source / "tools/packaging/common/envoy_bootstrap.json",
                folder / CHARTS / "envoy_bootstrap.json",
            )
    target.rename(folder / DEFINITIONS)


def _build(module: str, packages: list[str], folder: Path) -> None:
    version = PINS["modules"][module]["version"]
    source = _download(module, folder)
    work = folder / "build"
    shutil.rmtree(work, ignore_errors=True)
    if module == "istio.io/istio":
        # Its go.mod replaces nothing by folders, so that a copy builds with its own go.sum.
        shutil.copytree(source, work, copy_function=shutil.copyfile)
        targets = {f"./{package}": package for package in packages}
        flags = "-s -w -X istio.io/istio/pkg/version.buildVersion=1.31.0"
    else:
        work.mkdir()
        targets, flags = _wrap(module, packages, version, work)
    for target, package in targets.items():
        name = _name(module, package)
        sys.stdout.write(f"building {name} {version}\n")
        sys.stdout.flush()
        output = str(folder / name)
        _go("build", "-p", "2", "-trimpath", "-ldflags", flags, "-o", output, target, cwd=work)
    shutil.rmtree(work)


def _wrap(module: str, packages: list[str], version: str, work: Path) -> tuple[dict[str, str], str]:
    """Write a module that requires *module* with pinned versions and checksums."""
    lines = ["module programs", "go 1.24.0", f"require {module} {version}"]
    flags = "-s -w"
    if module == "k8s.io/kubernetes":
        staging = "v0" + version.removeprefix("v1")
        own = json.loads(_go("mod", "edit", "-json", cwd=_download(module, work)))
        lines += [
            f"replace {r['Old']['Path']} => {r['Old']['Path']} {staging}"
            for r in own["Replace"] or []
            if r["New"]["Path"].startswith("./staging")
        ]
        minor = version.split(".")[1]
        stamp = "-X k8s.io/component-base/version"
        flags += f" {stamp}.gitVersion={version} {stamp}.gitMajor=1 {stamp}.gitMinor={minor}"
        targets = {f"{module}/{package}": package for package in packages}
    else:
        (work / "main.go").write_text(
            'package main\n\nimport (\n\t"os"\n\n\t"go.etcd.io/etcd/server/v3/etcdmain"\n)\n\n'
            "func main() { etcdmain.Main(os.Args) }\n"
        )
        targets = {".": "etcd"}
    (work / "go.mod").write_text("\n".join(lines) + "\n")
    return targets, flags


if __name__ == "__main__":
    try:
        print(find().folder)
    except ProgramsError as error:
        sys.exit(str(error))
