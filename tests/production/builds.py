"""Building third-party programs from Go modules."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

CHARTS, DEFINITIONS = "istio-manifests", "definitions"
ISTIO, KUBERNETES, ETCD = "istio.io/istio", "k8s.io/kubernetes", "go.etcd.io/etcd/server/v3"
COLLECTOR = "go.opentelemetry.io/collector/cmd/builder"
BUILD_SECONDS = 3600
Pins = dict[str, Any]


class BuildError(Exception):
    """A program cannot be built; the message is one sentence."""


def copy_definitions(pins: Pins, folder: Path) -> None:
    """Copy the resource definitions and Istio's charts to *folder*."""
    target = folder / f"{DEFINITIONS}.part"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for module, files in pins["definitions"].items():
        source = _download(pins, module, folder)
        for file in files:
            text = (source / file).read_text()
            # Lines of labels and annotations that only Helm can fill in.
            kept = [line for line in text.splitlines() if "{{" not in line]
            (target / Path(file).name).write_text("\n".join(kept) + "\n")
        if module == ISTIO and not (folder / CHARTS).exists():
            charts = folder / f"{CHARTS}.part"
            shutil.rmtree(charts, ignore_errors=True)
            shutil.copytree(source / "manifests", charts, copy_function=shutil.copyfile)
            shutil.copyfile(
                source / "tools/packaging/common/envoy_bootstrap.json",
                charts / "envoy_bootstrap.json",
            )
            charts.rename(folder / CHARTS)
    shutil.rmtree(folder / DEFINITIONS, ignore_errors=True)
    target.rename(folder / DEFINITIONS)


def build(pins: Pins, module: str, folder: Path) -> None:
    """
    Build the programs of *module* into *folder*.

    Raises:
        BuildError: A checksum differs, or Go fails.
    """
    (how,) = [modules[module] for modules in pins["programs"].values() if module in modules]
    source = _download(pins, module, folder)
    top = work = folder / f"build-{next(iter(how['packages']))}"
    shutil.rmtree(work, ignore_errors=True)
    flags = f"-s -w {how.get('flags', '')}"
    prefix = "./"
    if module == COLLECTOR:
        work = _collector(pins, work)
    elif module in {ETCD, KUBERNETES}:
        flags += _wrap(pins, module, source, work)
        prefix = f"{module}/" if module == KUBERNETES else "./"
    else:
        # Its go.mod replaces nothing by folders, so that a copy builds with its own go.sum.
        shutil.copytree(source, work, copy_function=shutil.copyfile)
        if page := how.get("page"):
            (work / page).parent.mkdir(parents=True)
            (work / page).write_text("<!doctype html><title>Not included</title>\n")
    for name, package in how["packages"].items():
        sys.stdout.write(f"building {name} {pins['modules'][module]['version']}\n")
        sys.stdout.flush()
        options = ("-trimpath", "-tags", how.get("tags", ""), "-ldflags", flags)
        _go("build", *options, "-o", str(folder / name), f"{prefix}{package}", cwd=work)
    shutil.rmtree(top)


def _go(*arguments: str, cwd: Path) -> str:
    if shutil.which("go") is None:
        raise BuildError("Go is not installed.")
    variables = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false", "GOWORK": "off"}
    done = subprocess.run(
        ["go", *arguments],
        cwd=cwd,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        why = (done.stderr.strip() or done.stdout.strip())[-400:]
        raise BuildError(f"go {arguments[0]} failed: {why}")
    return done.stdout


def _download(pins: Pins, module: str, folder: Path) -> Path:
    """Return the folder of *module* in Go's cache, after checking its pinned checksum."""
    pin = pins["modules"][module]
    found = json.loads(_go("mod", "download", "-json", f"{module}@{pin['version']}", cwd=folder))
    if found["Sum"] != pin["sum"]:
        raise BuildError(f"{module} {pin['version']} has the checksum {found['Sum']}.")
    return Path(found["Dir"])


def _collector(pins: Pins, work: Path) -> Path:
    """Generate the sources of the collector; return their folder."""
    work.mkdir()
    manifest = work / "manifest.yaml"
    manifest.write_text(json.dumps(pins["collector"]))
    builder = f"{COLLECTOR}@{pins['modules'][COLLECTOR]['version']}"
    _go("run", builder, "--config", str(manifest), "--skip-compilation", cwd=work)
    return work / "out"


def _wrap(pins: Pins, module: str, source: Path, work: Path) -> str:
    """
    Write a module that requires *module* with pinned versions and checksums; return linker flags.
    """
    work.mkdir()
    version = pins["modules"][module]["version"]
    lines = ["module programs", "go 1.24.0", f"require {module} {version}"]
    flags = ""
    if module == KUBERNETES:
        staging = "v0" + version.removeprefix("v1")
        own = json.loads(_go("mod", "edit", "-json", cwd=source))
        lines += [
            f"replace {r['Old']['Path']} => {r['Old']['Path']} {staging}"
            for r in own["Replace"] or []
            if r["New"]["Path"].startswith("./staging")
        ]
        minor = version.split(".")[1]
        stamp = "-X k8s.io/component-base/version"
        flags = f" {stamp}.gitVersion={version} {stamp}.gitMajor=1 {stamp}.gitMinor={minor}"
    else:
        (work / "main.go").write_text(
            'package main\n\nimport (\n\t"os"\n\n\t"go.etcd.io/etcd/server/v3/etcdmain"\n)\n\n'
            "func main() { etcdmain.Main(os.Args) }\n"
        )
    (work / "go.mod").write_text("\n".join(lines) + "\n")
    return flags
