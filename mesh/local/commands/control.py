"""Commands that control a running mesh: faults, canaries, restarts, certificate rotation."""

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from mesh.command_line import DATA_OPTION, UserError
from mesh.control import ControlError
from mesh.local.control import client
from mesh.local.data_folder import DataFolder
from mesh.local.pki import certificate_authority
from mesh.local.pki.rotation import rotate
from mesh.local.running_mesh import NotRunningError

_DURATION = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>ms|s|m)", re.ASCII)
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000}


def _send(data: Path, action: str, **arguments: Any) -> Any:
    data_folder = DataFolder(data.resolve())
    try:
        return asyncio.run(client.send_action(data_folder, action, click.echo, **arguments))
    except (ControlError, NotRunningError) as fault:
        raise UserError(str(fault)) from fault


def _milliseconds(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    found = _DURATION.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is not a duration with a unit, such as 300ms or 1.5s.")
    return float(found["number"]) * _MILLISECONDS[found["unit"]]


@click.group()
def fault() -> None:
    """Inject faults: delay or abort a percentage of a method's calls."""


@fault.command("add")
@click.argument("method")
@click.option(
    "--delay", callback=_milliseconds, metavar="DURATION", help="Delay, for example 300ms or 1.5s."
)
@click.option("--abort", metavar="STATUS", help="gRPC status to return, for example UNAVAILABLE.")
@click.option(
    "--percent",
    type=float,
    default=100,
    show_default=True,
    help="Percentage of calls to affect.",
)
@DATA_OPTION
def fault_add(
    method: str, *, delay: float | None, abort: str | None, percent: float, data: Path
) -> None:
    """Inject a fault into METHOD, replacing any existing one.

    \b
    amarre fault add survey.ListRequests --delay 300ms --percent 50
    amarre fault add survey.ListRequests --abort UNAVAILABLE
    """
    arguments = {"method": method, "delay_ms": delay, "abort": abort, "percent": percent}
    click.echo(_send(data, "fault add", **arguments))


@fault.command("list")
@DATA_OPTION
def fault_list(data: Path) -> None:
    """List the injected faults."""
    for line in _send(data, "fault list") or ["No faults are injected."]:
        click.echo(line)


@fault.command("clear")
@click.argument("method", required=False)
@DATA_OPTION
def fault_clear(method: str | None, data: Path) -> None:
    """Remove the fault of METHOD, or every fault."""
    count = _send(data, "fault clear", method=method)
    click.echo(f"Faults removed: {count}.")


@click.group()
def canary() -> None:
    """Run a second version of a service for a percentage of the calls."""


WEIGHT = click.option("--weight", type=click.IntRange(0, 100), help="Percentage of the calls.")


@canary.command("start")
@click.argument("service")
@click.option(
    "--command", help="Command to run as the canary. Default: the service's current command."
)
@click.option(
    "--weight",
    type=click.IntRange(0, 100),
    default=10,
    show_default=True,
    help="Percentage of the calls at the start.",
)
@click.option("--manual", is_flag=True, help="Do not promote or abort automatically.")
@DATA_OPTION
def canary_start(
    service: str, *, command: str | None, weight: int, manual: bool, data: Path
) -> None:
    """Start a canary of SERVICE.

    It is compared with the stable version, and promoted step by step or aborted.
    """
    arguments = {"service": service, "command": command, "weight": weight, "manual": manual}
    _show(_send(data, "canary start", **arguments))


@canary.command("set")
@click.argument("service")
@click.argument("percent", type=click.IntRange(0, 100), required=False)
@WEIGHT
@DATA_OPTION
def canary_set(service: str, percent: int | None, *, weight: int | None, data: Path) -> None:
    """Set the percentage of calls that the canary of SERVICE gets."""
    share = percent if percent is not None else weight
    if share is None:
        raise UserError(f"Pass a percentage, for example: amarre canary set {service} 25")
    _show(_send(data, "canary set", service=service, weight=share))


@canary.command("status")
@click.argument("service", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@DATA_OPTION
def canary_status(service: str | None, *, as_json: bool, data: Path) -> None:
    """Compare each canary with the stable version."""
    found = _send(data, "canary status", service=service)
    if as_json:
        click.echo(json.dumps(found))
        return
    for one in found:
        _show(one)
    if not found:
        click.echo("No canaries.")


@canary.command("promote")
@click.argument("service")
@DATA_OPTION
def canary_promote(service: str, data: Path) -> None:
    """Replace every replica of SERVICE with one that runs the canary's command."""
    _show(_send(data, "canary promote", service=service))


@canary.command("abort")
@click.argument("service")
@DATA_OPTION
def canary_abort(service: str, data: Path) -> None:
    """Stop sending calls to the canary of SERVICE, then stop the canary."""
    _show(_send(data, "canary abort", service=service))


def _show(status: Mapping[str, Any]) -> None:
    line = f"{status['service']}: {status['state']}, {status['weight']} %"
    if status["state"] == "running":
        analysis = {"wait": "waiting for data"}.get(status["verdict"], status["verdict"])
        promotion = "manual" if status["manual"] else "automatic"
        line += f"; analysis: {analysis}; promotion: {promotion}"
    click.echo(line)
    click.echo(f"  stable  {status['stable']}")
    click.echo(f"  canary  {status['canary']}")


@click.command()
@click.argument("service")
@DATA_OPTION
def restart(service: str, data: Path) -> None:
    """Restart every replica of SERVICE, one after another, without losing a call."""
    names = _send(data, "restart", service=service)
    click.echo(f"Restarted: {', '.join(names)}.")


@click.command("rotate")
@click.option("--root", is_flag=True, help="Also rotate the root CA, in three phases.")
@DATA_OPTION
def certs_rotate(*, root: bool, data: Path) -> None:
    """Renew every certificate without interrupting calls."""
    data_folder = DataFolder(data.resolve())
    try:
        asyncio.run(_rotate(data_folder, root=root))
    except (ControlError, certificate_authority.CaError) as fault:
        raise UserError(str(fault)) from fault


async def _rotate(data_folder: DataFolder, *, root: bool) -> None:
    try:
        await client.send_action(data_folder, "rotate", click.echo, root=root)
    except NotRunningError as nobody:
        if not data_folder.certs.is_dir():
            raise ControlError(
                f"There are no certificates in {data_folder.data}. "
                "`amarre certs issue` creates them."
            ) from nobody

        async def settled() -> None:
            """Return at once: no process uses the certificates."""

        await rotate(data_folder, root=root, settled=settled, progress=click.echo)
