"""Commands of the console: ``amarre console``, ``traces``, ``logs``, ``metrics`` and ``top``."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from mesh.command_line import DATA_OPTION, UserError
from mesh.console.terminal import tables
from mesh.console.terminal.client import Client

Find = Callable[[Path], tuple[str, str]]
"""Returns URL and token of the console of the mesh that uses a data folder."""
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
_FOLLOW = click.option("--follow", "-f", is_flag=True, help="Follow new results until interrupted.")
_SERVICE = click.option("--service", default="", help="Show only this service.")
_LIMIT = click.option(
    "--limit",
    type=click.IntRange(1, 500),
    default=20,
    show_default=True,
    help="Maximum number of results.",
)
_WINDOW = click.option(
    "--window", default="5m", show_default=True, help="How far to look back, for example 15m or 1h."
)


def commands(find: Find) -> list[click.Command]:
    """Return the commands; *find* locates the console of a data folder."""

    def client(data: Path) -> Client:
        return Client(*find(data))

    @click.command("console")
    @DATA_OPTION
    def console(data: Path) -> None:
        """Print a one-time sign-in link for the console, valid for 10 minutes."""
        click.echo(client(data).link())

    @click.command("traces")
    @click.argument("trace_id", default="")
    @_SERVICE
    @click.option(
        "--rpc", default="", help="Show only traces with this method, such as survey.ListRequests."
    )
    @click.option(
        "--status",
        type=click.Choice(["ok", "error"]),
        default=None,
        help="Show only traces that succeeded, or only those that failed.",
    )
    @click.option(
        "--min-ms", type=float, default=None, help="Show only traces that took at least this long."
    )
    @click.option("--attr", default="", help="Show only traces with this attribute, key=value.")
    @_LIMIT
    @_FOLLOW
    @_JSON
    @DATA_OPTION
    def traces(trace_id: str, data: Path, *, follow: bool, as_json: bool, **wanted: Any) -> None:
        """Search traces, or show the trace TRACE_ID."""
        asked = client(data)
        if trace_id:
            whole = asked.get(f"traces/{quote(trace_id, safe='')}")
            _echo(whole["spans"] if as_json else tables.waterfall(whole), as_json=as_json)
        elif follow:
            _echo_all(asked.follow("traces", **wanted), tables.trace, as_json=as_json)
        else:
            _echo_all(asked.get("traces", **wanted)["items"], tables.trace, as_json=as_json)

    @click.command("logs")
    @click.argument("text", default="")
    @_SERVICE
    @click.option(
        "--level", default="", help="Show only records of at least this level, for example warning."
    )
    @click.option(
        "--kind",
        default="",
        help="Show only records of this kind: access, error, slow, security or event.",
    )
    @click.option("--trace", "trace_id", default="", help="Show only records of this trace.")
    @_LIMIT
    @_FOLLOW
    @_JSON
    @DATA_OPTION
    def logs(text: str, data: Path, *, follow: bool, as_json: bool, **wanted: Any) -> None:
        """Search log records for TEXT, oldest first, or follow new ones."""
        asked = client(data)
        found = reversed(asked.get("logs", q=text, **wanted)["items"])
        _echo_all(found, tables.log, as_json=as_json)
        if follow:
            _echo_all(asked.follow("logs", q=text, **wanted), tables.log, as_json=as_json)

    @click.command("metrics")
    @_SERVICE
    @_WINDOW
    @_JSON
    @DATA_OPTION
    def metrics(data: Path, *, as_json: bool, service: str, window: str) -> None:
        """Show every method with the objective of its contract."""
        items = client(data).get("metrics", service=service, window=window)["items"]
        if as_json:
            _echo_all(items, str, as_json=True)
        else:
            screen = tables.screen()
            screen.print(tables.methods(items, screen.width))

    @click.command("top")
    @_WINDOW
    @click.option("--once", is_flag=True, help="Print once and exit.")
    @DATA_OPTION
    def top(data: Path, *, window: str, once: bool) -> None:
        """Watch services, methods and alerts until interrupted."""
        from rich.console import Group
        from rich.live import Live

        asked = client(data)

        def picture() -> Group:
            overview = asked.get("overview", window=window)
            busy = [m for m in asked.get("metrics", window=window)["items"] if m["calls"]]
            # Rows beyond the screen are cut off, so alerts come first.
            return Group(
                tables.services(overview["items"], screen.width),
                *tables.alerts(overview),
                tables.methods(busy, screen.width),
            )

        screen = tables.screen()
        if once:
            screen.print(picture())
            return
        with Live(picture(), console=screen, screen=True, auto_refresh=False) as live:
            try:
                while True:
                    time.sleep(2)
                    live.update(picture(), refresh=True)
            except KeyboardInterrupt:
                return

    @click.command("export")
    @click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
    @DATA_OPTION
    def export(file: Path, data: Path) -> None:
        """Export all stored telemetry to FILE; `amarre import` opens it."""
        if file.exists():
            raise UserError(f"{file} already exists; choose another file.")
        client(data).save("export", file)
        click.echo(f"{file}: {file.stat().st_size / 1e6:.1f} MB.")

    @click.group("policy")
    def policy() -> None:
        """Compare declared with observed calls."""

    @policy.command("diff")
    @click.option("--from", "since", default="-1d", show_default=True, help="RFC 3339 or relative.")
    @click.option("--to", "until", default="", help="RFC 3339 or relative. Default: now.")
    @_JSON
    @DATA_OPTION
    def policy_diff(data: Path, *, since: str, until: str, as_json: bool) -> None:
        """Show observed calls that are not declared, and declared calls that were not observed.

        The exit status is 1 if there are any.
        """
        edges = client(data).get("graph", **{"from": since, "to": until})["items"]
        found = [edge for edge in edges if edge["declared"] != edge["observed"]]
        _echo_all(found, tables.difference, as_json=as_json)
        if found:
            raise SystemExit(1)
        click.echo("No differences between declared and observed calls.")

    return [policy, console, traces, logs, metrics, top, export, _show]


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--listen", default="127.0.0.1:3120", show_default=True, help="Address to listen on.")
def _show(file: Path, listen: str) -> None:
    """Open an exported FILE in a separate console until interrupted."""
    import asyncio

    from mesh.console.app import ListenError
    from mesh.console.store.schema import DatabaseError
    from mesh.console.terminal import offline_viewer

    try:
        asyncio.run(offline_viewer.show(file, listen, click.echo))
    except KeyboardInterrupt:
        return
    except (ListenError, DatabaseError) as exc:
        raise UserError(str(exc)) from exc


def _echo_all(
    items: Iterable[dict[str, Any]], line: Callable[[dict[str, Any]], str], *, as_json: bool
) -> None:
    try:
        for item in items:
            click.echo(json.dumps(item) if as_json else tables.printable(line(item)))
    except KeyboardInterrupt:
        return


def _echo(found: Iterable[Any], *, as_json: bool) -> None:
    for one in found:
        click.echo(json.dumps(one) if as_json else tables.printable(one))
