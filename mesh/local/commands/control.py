"""The commands that steer a running mesh: faults, canaries, restarts, new certificates."""

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

_DURATION = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>ms|s|)")


def _send(data: Path, action: str, **arguments: Any) -> Any:
    layout = DataFolder(data.resolve())
    try:
        return asyncio.run(client.send_action(layout, action, click.echo, **arguments))
    except (ControlError, NotRunningError) as fault:
        raise UserError(str(fault)) from fault


def _milliseconds(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    if value is None:
        return None
    found = _DURATION.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"{value}: write 300ms or 1.5s.")
    return float(found["number"]) * (1 if found["unit"] == "ms" else 1000)


@click.group()
def fault() -> None:
    """Delay or abort a method for a share of its calls."""


@fault.command("add")
@click.argument("method")
@click.option("--delay", callback=_milliseconds, help="How long to wait, for instance 300ms.")
@click.option("--abort", help="The gRPC status to answer with, for instance UNAVAILABLE.")
@click.option("--percent", type=float, default=100, show_default=True, help="Of how many calls.")
@DATA_OPTION
def fault_add(
    method: str, *, delay: float | None, abort: str | None, percent: float, data: Path
) -> None:
    """Give METHOD (survey.ListRequests) a fault in place of the one it may have."""
    arguments = {"method": method, "delay_ms": delay, "abort": abort, "percent": percent}
    click.echo(_send(data, "fault add", **arguments))


@fault.command("list")
@DATA_OPTION
def fault_list(data: Path) -> None:
    """Show every fault."""
    for line in _send(data, "fault list") or ["There are no faults."]:
        click.echo(line)


@fault.command("clear")
@click.argument("method", required=False)
@DATA_OPTION
def fault_clear(method: str | None, data: Path) -> None:
    """Remove the fault of METHOD, or all of them."""
    count = _send(data, "fault clear", method=method)
    click.echo(f"{count} removed.")


@click.group()
def canary() -> None:
    """Run a second version of a service beside the first."""


WEIGHT = click.option("--weight", type=click.IntRange(0, 100), help="Percent of the calls.")


@canary.command("start")
@click.argument("service")
@click.option("--command", help="Its program; without, the same again.")
@click.option("--weight", type=click.IntRange(0, 100), default=10, show_default=True)
@click.option("--manual", is_flag=True, help="Leave the verdict to people.")
@DATA_OPTION
def canary_start(
    service: str, *, command: str | None, weight: int, manual: bool, data: Path
) -> None:
    """Start a canary of SERVICE; it is promoted by steps, or aborted, by how it does."""
    arguments = {"service": service, "command": command, "weight": weight, "manual": manual}
    _show(_send(data, "canary start", **arguments))


@canary.command("set")
@click.argument("service")
@click.argument("percent", type=click.IntRange(0, 100), required=False)
@WEIGHT
@DATA_OPTION
def canary_set(service: str, percent: int | None, *, weight: int | None, data: Path) -> None:
    """Give the canary of SERVICE another share, in PERCENT."""
    share = percent if percent is not None else weight
    if share is None:
        raise UserError(f"Say how much: amarre canary set {service} 25")
    _show(_send(data, "canary set", service=service, weight=share))


@canary.command("status")
@click.argument("service", required=False)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@DATA_OPTION
def canary_status(service: str | None, *, as_json: bool, data: Path) -> None:
    """Show how canaries do beside the stable version."""
    found = _send(data, "canary status", service=service)
    if as_json:
        click.echo(json.dumps(found))
        return
    for one in found:
        _show(one)
    if not found:
        click.echo("There is no canary.")


@canary.command("promote")
@click.argument("service")
@DATA_OPTION
def canary_promote(service: str, data: Path) -> None:
    """Let the canary's program take the place of every replica of SERVICE."""
    _show(_send(data, "canary promote", service=service))


@canary.command("abort")
@click.argument("service")
@DATA_OPTION
def canary_abort(service: str, data: Path) -> None:
    """Take all calls away from the canary of SERVICE and stop it."""
    _show(_send(data, "canary abort", service=service))


def _show(status: Mapping[str, Any]) -> None:
    judge = "people" if status["manual"] else "the mesh"
    verdict = f"verdict {status['verdict']}, {judge} decides"
    click.echo(f"{status['service']}: {status['state']}, {status['weight']} %, {verdict}")
    click.echo(f"  stable  {status['stable']}")
    click.echo(f"  canary  {status['canary']}")


@click.command()
@click.argument("service")
@DATA_OPTION
def restart(service: str, data: Path) -> None:
    """Replace every process of SERVICE by a new one without losing a call."""
    names = _send(data, "restart", service=service)
    click.echo(f"{', '.join(names)}: replaced.")


@click.command("rotate")
@click.option("--root", is_flag=True, help="The root too, in three steps.")
@DATA_OPTION
def certs_rotate(*, root: bool, data: Path) -> None:
    """Renew every certificate; calls go on."""
    layout = DataFolder(data.resolve())
    try:
        asyncio.run(_rotate(layout, root=root))
    except (ControlError, certificate_authority.CaError) as fault:
        raise UserError(str(fault)) from fault


async def _rotate(layout: DataFolder, *, root: bool) -> None:
    try:
        await client.send_action(layout, "rotate", click.echo, root=root)
    except NotRunningError as nobody:
        if not layout.certs.is_dir():
            raise ControlError(
                f"There are no certificates in {layout.data}. `amarre certs issue` makes them."
            ) from nobody

        async def settled() -> None:
            """Nobody uses them yet."""

        await rotate(layout, root=root, settled=settled, progress=click.echo)
