"""The ``amarre`` command; each command calls the module that implements it."""

import asyncio
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mesh.chassis.config import GRPC_EXPERIMENTS
from mesh.command_line import DATA_OPTION, UserError, counted
from mesh.console.terminal import client
from mesh.console.terminal.commands import commands as console_commands
from mesh.local.commands import control
from mesh.local.data_folder import DataFolder, DataFolderError
from mesh.render import registry

_OF_OTHER_PROGRAMS = (
    *("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"),  # shares metrics of other processes
    "SSLKEYLOGFILE",  # writes the secrets of TLS connections to a file
)
"""Variables that libraries of this program obey, too. Processes get none but listed variables."""


class _Commands(click.Group):
    """Commands that report files which cannot be read or written as one sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise
        except OSError as exc:
            place = f"{exc.filename}: " if exc.filename else ""
            raise UserError(f"{place}{exc.strerror or exc}.") from exc


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="amarre-mesh", prog_name="amarre")
def main() -> None:
    """Run, inspect and control an AMARRE mesh.

    \b
    Start a mesh on this machine:        amarre up
    Show the state of each process:      amarre status
    Check the prerequisites:             amarre doctor
    Call a service:                      amarre call health.GetStatus
    Read logs and traces:                amarre logs --follow, amarre traces
    """
    for variable in _OF_OTHER_PROGRAMS:
        os.environ.pop(variable, None)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@main.command()
@click.option(
    "--port-base",
    default=3000,
    show_default=True,
    help="First port; see docs/reference/rendered/ports.md.",
)
@DATA_OPTION
@click.option(
    "--direct", is_flag=True, help="Run without Envoy; services terminate mTLS themselves."
)
@click.option(
    "--replicas",
    multiple=True,
    metavar="NAME=N",
    help="Number of replicas of a service, for example survey=2. Can be repeated.",
)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the state of the mesh to this file, as JSON, once everything is ready.",
)
def up(
    port_base: int,
    data: Path,
    *,
    direct: bool,
    replicas: tuple[str, ...],
    ready_file: Path | None,
) -> None:
    """Start the mesh, wait until it is ready and print its addresses.

    Ctrl-C drains and stops it; a second Ctrl-C stops it at once.

    \b
    amarre up --port-base 4000 --data /tmp/second
    amarre up --replicas survey=2 --replicas gateway=2
    """
    # Whatever creates databases and certificates, other users cannot read them.
    os.umask(0o077)
    # The runner's processes are forked from this one, which imports gRPC now.
    os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_EXPERIMENTS)
    from mesh import topology
    from mesh.local import folder_lock, runner, settings
    from mesh.local.pki import certificate_authority
    from mesh.local.processes import envoy, fork_server, plan, supervisor

    faults = (
        DataFolderError,
        plan.PlanError,
        settings.InvalidSettingsError,
        runner.PortsInUseError,
        folder_lock.AlreadyRunningError,
        certificate_authority.CaError,
        supervisor.StartFailedError,
        envoy.EnvoyError,
    )
    try:
        options = plan.Options(port_base, direct, _replicas(replicas))
        file = runner.check_ready_file(ready_file) if ready_file else None
        modules = [f"{process.module}.__main__" for process in topology.PROCESSES]
        forks = fork_server.ForkServer.begin(modules, plan.inherited())
        mesh = runner.Runner(DataFolder(data.resolve()), options, file, forks)
        variables = settings.check(mesh.plan.units)
        with mesh.prepared():
            click.echo("Starting … (Ctrl-C stops)", err=True)
            asyncio.run(mesh.run(lambda: _print_summary(mesh.ready(), variables.description)))
        if mesh.killed:
            # Threads that still export logs are not waited for.
            os._exit(130)
    except faults as fault:
        raise UserError(str(fault)) from fault
    click.echo("Stopped.", err=True)


def _print_summary(ready: dict[str, Any], settings: str) -> None:
    from mesh.local.commands import start_summary

    console = client.Client(ready["urls"]["console"], ready["console"]["token"])
    try:
        start_summary.show(ready, console_link=console.link(), settings=settings)
    except (BrokenPipeError, SystemExit) as exc:  # Rich exits if the pipe is closed.
        raise UserError("Standard output was closed, so the mesh was stopped.") from exc


def _replicas(given: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for text in given:
        name, _, count = text.partition("=")
        if not count.isdecimal():
            raise UserError(f"--replicas {text}: write NAME=N, for example survey=2.")
        found[name] = int(count)
    return found


@main.command()
@DATA_OPTION
def status(data: Path) -> None:
    """Show the state of every process, and current problems.

    The exit status is 1 if a process is not ready, and 2 if no mesh runs.
    """
    from mesh.local.commands import status as module

    try:
        report = asyncio.run(module.report(DataFolder(data.resolve())))
    except module.NotRunningError as fault:
        raise UserError(str(fault)) from fault
    module.show(report)
    sys.exit(0 if report.ready else 1)


@main.command()
@click.option(
    "--port-base", default=3000, show_default=True, help="First port of the range to check."
)
@click.option(
    "--kubernetes",
    default="",
    metavar="CONTEXT",
    help="Check the cluster of this kubectl context instead of this machine.",
)
@DATA_OPTION
def doctor(port_base: int, kubernetes: str, data: Path) -> None:
    """Check the prerequisites of this machine, and explain how to install missing ones."""
    from mesh.local.commands import doctor as module
    from mesh.local.commands import kubernetes_doctor

    if kubernetes:
        try:
            findings = kubernetes_doctor.examine(kubernetes)
        except kubernetes_doctor.ClusterError as fault:
            raise UserError(str(fault)) from fault
    else:
        findings = module.examine(DataFolder(data.resolve()), port_base)
    module.show(findings)
    sys.exit(1 if any(f.needed and not f.ok for f in findings) else 0)


@main.command()
@click.argument("method")
@click.argument("request", default="{}")
@click.option(
    "--as",
    "identity",
    default="gateway",
    show_default=True,
    metavar="IDENTITY",
    help="Service account that calls.",
)
@click.option(
    "--session",
    default="",
    help="Session secret of a user (the value of the cookie), for methods that require a session.",
)
@DATA_OPTION
def call(method: str, request: str, identity: str, session: str, data: Path) -> None:
    """Call METHOD with REQUEST as JSON, over mTLS; prints the response as JSON.

    \b
    amarre call health.GetStatus
    amarre call survey.ListRequests '{"pageSize": 10}' --session SECRET
    """
    from mesh.local.commands import call

    try:
        data_folder = DataFolder(data.resolve())
        for answer in _collected(
            call.call(data_folder, method, request, identity, session=session)
        ):
            click.echo(answer)
    except call.CallRefusedError as fault:
        raise UserError(str(fault)) from fault


def _collected(answers: Any) -> list[str]:
    async def collect() -> list[str]:
        return [answer async for answer in answers]

    return asyncio.run(collect())


@main.command()
@click.argument(
    "action",
    type=click.Choice(
        ["export", "import", "block", "unblock", "end-sessions", "forget-passkeys", "erase"]
    ),
)
@click.argument("target", metavar="FILE|USER")
@click.option(
    "--dry-run", is_flag=True, help="Print what an import would change, without changing anything."
)
@click.option("--yes", is_flag=True, help="Erase the user; otherwise, only print the id.")
@DATA_OPTION
def identities(action: str, target: str, data: Path, *, dry_run: bool, yes: bool) -> None:
    """Move users between identity providers, or change the access of one user.

    export and import take a FILE with ids, email addresses and roles. The other actions take a
    USER: an id or an email address. A blocked user has no sessions and cannot sign in.
    forget-passkeys is for users who lost their passkeys, and ends their sessions too. erase deletes
    the user in Auth, and reservations and consents in Survey. Running services apply changes within
    5 s.

    They act on the provider that the settings of Auth select: set AMARRE_AUTH_PROVIDER=appwrite
    and its variables to act on Appwrite.
    """
    from mesh.local import identities as programs

    folder = DataFolder(data.resolve())
    if action == "erase":
        sys.exit(programs.erase(folder, target, yes=yes))
    options = ["--dry-run"] if dry_run else []
    sys.exit(programs.auth(folder, action, target, *options).returncode)


@main.group()
def certs() -> None:
    """Show, issue and rotate the certificates of the local mesh."""


@certs.command("show")
@DATA_OPTION
def certs_show(data: Path) -> None:
    """Show every identity and when its certificate expires."""
    from mesh.local.pki import certificate_authority

    found = certificate_authority.show(DataFolder(data.resolve()).certs)
    if not found:
        raise UserError(f"There are no certificates in {data}. `amarre certs issue` creates them.")
    for entry in found:
        click.echo(f"{entry.name:<10} {entry.not_after:%Y-%m-%d %H:%M} UTC  {entry.identity}")


@certs.command("issue")
@DATA_OPTION
def certs_issue(data: Path) -> None:
    """Issue a certificate for every workload that has none or whose certificate is past half its
    lifetime.
    """
    from mesh.local.pki import certificate_authority

    data_folder = DataFolder(data.resolve())
    try:
        data_folder.prepare()
        certificate_authority.issue_all(
            certificate_authority.CertificateAuthority.load_or_create(data_folder.ca),
            data_folder.certs,
        )
    except (DataFolderError, certificate_authority.CaError) as fault:
        raise UserError(str(fault)) from fault
    click.echo(f"Certificates are in {data_folder.certs}.")


@main.command(epilog=f"Targets: {', '.join(registry.TARGETS)}.")
@click.argument("target", type=click.Choice(list(registry.TARGETS)), metavar="TARGET")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write the files to this folder instead of printing them.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Compare with the committed files; the exit status is 1 if they differ.",
)
@click.option("--commit", is_flag=True, help="Update the committed files.")
@click.option(
    "--runbooks",
    envvar="AMARRE_RUNBOOKS_URL",
    default="",
    metavar="URL",
    help="Base URL of the published runbooks, for links in alerts (or AMARRE_RUNBOOKS_URL).",
)
def render(target: str, out: Path | None, *, check: bool, commit: bool, runbooks: str) -> None:
    """Render the configuration TARGET from the contracts."""
    files = registry.render(target, runbooks)
    if check:
        drifted = registry.drift(files, out or registry.committed(target))
        for path in drifted:
            click.echo(f"differs: {path}", err=True)
        sys.exit(1 if drifted else 0)
    if commit:
        out = registry.committed(target)
    if out:
        registry.write(files, out)
        click.echo(f"{counted(len(files), 'file')} in {out}.")
    else:
        _print_files(files, click.echo)


def _print_files(files: dict[str, str], echo: Callable[[str], None]) -> None:
    for name, text in files.items():
        if len(files) > 1:
            echo(f"# ---- {name}")
        echo(text.rstrip("\n"))


main.add_command(control.fault)
main.add_command(control.canary)
main.add_command(control.restart)
certs.add_command(control.certs_rotate)


def _console(data: Path) -> tuple[str, str]:
    from mesh.local import running_mesh

    try:
        found = running_mesh.read_ready_file(DataFolder(data.resolve()))
    except running_mesh.NotRunningError as fault:
        raise UserError(str(fault)) from fault
    return found["urls"]["console"], found["console"]["token"]


for _command in console_commands(_console):
    main.add_command(_command)


if __name__ == "__main__":
    main()
