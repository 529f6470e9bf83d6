"""The console in a terminal: ``amarre console``, ``traces``, ``logs``, ``metrics`` and ``top``."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mesh.orders import this_user

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

Find = Callable[[Path], tuple[str, str]]
"""Returns URL and token of the console of the mesh that runs from a data folder."""
BAR = 40
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
_FOLLOW = click.option("--follow", "-f", is_flag=True, help="Go on with what comes. Ctrl-C ends.")
_SERVICE = click.option("--service", default="", help="Of this service alone.")
_LIMIT = click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True)
_WINDOW = click.option("--window", default="5m", show_default=True, help="How far back, 15m or 1h.")
_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="AMARRE_DATA",
    default=Path(".amarre"),
    show_default=True,
    help="Folder of the running mesh (or AMARRE_DATA).",
)


class Refused(click.ClickException):
    """What a person can mend: one message on stderr, exit status 2."""

    exit_code = 2


class Client:
    """Asks the API of a console."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._headers = {"authorization": f"Bearer {token}"}

    def get(self, path: str, **parameters: Any) -> Any:
        """
        Return the JSON of an endpoint; empty parameters are left out.

        Raises:
            Refused: The console is away, or says no.
        """
        return self._ask("GET", path, parameters)

    def link(self) -> str:
        """Return a link that opens the console once, to this user; fails as `get`."""
        return f"{self.url}{self._ask('POST', 'codes', {'who': this_user()})['path']}"

    def _ask(self, verb: str, path: str, parameters: dict[str, Any]) -> Any:
        import httpx

        kept = {name: value for name, value in parameters.items() if value not in ("", None)}
        try:
            answer = httpx.request(
                verb,
                f"{self.url}/api/{path}",
                params=kept,
                headers=self._headers,
                timeout=10,
                trust_env=False,
            )
            body = answer.json()
        except (httpx.HTTPError, ValueError) as exc:
            raise self._away() from exc
        if not answer.is_success:
            raise Refused(body.get("error", {}).get("message", f"HTTP {answer.status_code}"))
        return body

    def follow(self, path: str, **parameters: Any) -> Iterator[dict[str, Any]]:
        """Yield items as they come, until the console stops; fails as `get`."""
        import httpx

        kept = {name: value for name, value in parameters.items() if value not in ("", None)}
        try:
            with httpx.stream(
                "GET",
                f"{self.url}/api/{path}",
                params=kept | {"follow": "true"},
                headers=self._headers,
                timeout=httpx.Timeout(10, read=None),
                trust_env=False,
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    raise Refused(answer.json()["error"]["message"])
                for line in answer.iter_lines():
                    if line:
                        yield json.loads(line)
        except httpx.HTTPError as exc:
            raise self._away() from exc

    def save(self, path: str, file: Path) -> None:
        """Write what an endpoint answers to *file*, whole or not at all; fails as `get`."""
        import httpx

        part = file.with_name(f"{file.name}.part")
        try:
            with httpx.stream(
                "GET",
                f"{self.url}/api/{path}",
                headers=self._headers,
                timeout=httpx.Timeout(10, read=300),
                trust_env=False,
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    raise Refused(answer.json()["error"]["message"])
                with part.open("wb") as into:
                    for chunk in answer.iter_bytes():
                        into.write(chunk)
            part.replace(file)
        except httpx.HTTPError as exc:
            raise self._away() from exc
        except OSError as exc:
            raise Refused(f"{file} cannot be written ({exc.strerror}).") from exc
        finally:
            part.unlink(missing_ok=True)

    def _away(self) -> Refused:
        return Refused(f"The console at {self.url} does not answer. `amarre status` tells more.")


def commands(find: Find) -> list[click.Command]:
    """Return the commands; *find* leads them to the console of a data folder."""

    def client(data: Path) -> Client:
        return Client(*find(data))

    @click.command("console")
    @_DATA
    def console(data: Path) -> None:
        """Print a link that opens the console once, within 10 minutes."""
        click.echo(client(data).link())

    @click.command("traces")
    @click.argument("trace_id", default="")
    @_SERVICE
    @click.option("--rpc", default="", help="With a call of this method, survey.ListRequests.")
    @click.option("--status", type=click.Choice(["ok", "error"]), default=None)
    @click.option("--min-ms", type=float, default=None, help="That took at least this long.")
    @click.option("--attr", default="", help="With this attribute, key=value.")
    @_LIMIT
    @_FOLLOW
    @_JSON
    @_DATA
    def traces(trace_id: str, data: Path, *, follow: bool, as_json: bool, **wanted: Any) -> None:
        """Search traces, or show the one called TRACE_ID."""
        asked = client(data)
        if trace_id:
            whole = asked.get(f"traces/{trace_id}")
            _echo(whole["spans"] if as_json else _waterfall(whole), as_json=as_json)
        elif follow:
            _echo_all(asked.follow("traces", **wanted), _trace, as_json=as_json)
        else:
            _echo_all(asked.get("traces", **wanted)["items"], _trace, as_json=as_json)

    @click.command("logs")
    @click.argument("text", default="")
    @_SERVICE
    @click.option("--level", default="", help="At least this level.")
    @click.option("--kind", default="", help="access, error, slow, security or event.")
    @click.option("--trace", "trace_id", default="", help="Of this trace alone.")
    @_LIMIT
    @_FOLLOW
    @_JSON
    @_DATA
    def logs(text: str, data: Path, *, follow: bool, as_json: bool, **wanted: Any) -> None:
        """Search logs for TEXT, oldest first; or follow them."""
        asked = client(data)
        found = reversed(asked.get("logs", q=text, **wanted)["items"])
        _echo_all(found, _log, as_json=as_json)
        if follow:
            _echo_all(asked.follow("logs", q=text, **wanted), _log, as_json=as_json)

    @click.command("metrics")
    @_SERVICE
    @_WINDOW
    @_JSON
    @_DATA
    def metrics(data: Path, *, as_json: bool, service: str, window: str) -> None:
        """Show every method against the objective of its contract."""
        items = client(data).get("metrics", service=service, window=window)["items"]
        if as_json:
            _echo_all(items, str, as_json=True)
        else:
            screen = _console()
            screen.print(_methods(items, screen.width))

    @click.command("top")
    @_WINDOW
    @click.option("--once", is_flag=True, help="Show it once and end.")
    @_DATA
    def top(data: Path, *, window: str, once: bool) -> None:
        """Watch services, methods and alerts; Ctrl-C ends."""
        from rich.console import Group
        from rich.live import Live

        asked = client(data)

        def picture() -> Group:
            overview = asked.get("overview", window=window)
            busy = [m for m in asked.get("metrics", window=window)["items"] if m["calls"]]
            # What is below the screen's edge is not seen: what needs somebody stands above.
            return Group(
                _services(overview["items"], screen.width),
                *_alerts(overview),
                _methods(busy, screen.width),
            )

        screen = _console()
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
    @_DATA
    def export(file: Path, data: Path) -> None:
        """Write everything that the console keeps to FILE; `amarre import` shows it again."""
        if file.exists():
            raise Refused(f"{file} exists; name a new file.")
        client(data).save("export", file)
        click.echo(f"{file}: {file.stat().st_size / 1e6:.1f} MB.")

    return [console, traces, logs, metrics, top, export, _show]


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--listen", default="127.0.0.1:3120", show_default=True, help="Where to show it.")
def _show(file: Path, listen: str) -> None:
    """Show an exported FILE in a console of its own, beside any that runs; Ctrl-C ends."""
    import asyncio

    from mesh.console import imported
    from mesh.console.app import ListenError
    from mesh.console.schema import DatabaseError

    try:
        asyncio.run(imported.show(file, listen, click.echo))
    except KeyboardInterrupt:
        return
    except (ListenError, DatabaseError) as exc:
        raise Refused(str(exc)) from exc


def _console() -> Any:
    from rich.console import Console

    # Into a file or a pipe goes the whole table, whatever width a terminal would have.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def _echo_all(
    items: Iterable[dict[str, Any]], line: Callable[[dict[str, Any]], str], *, as_json: bool
) -> None:
    try:
        for item in items:
            click.echo(json.dumps(item) if as_json else line(item))
    except KeyboardInterrupt:
        return


def _echo(found: Iterable[Any], *, as_json: bool) -> None:
    for one in found:
        click.echo(json.dumps(one) if as_json else one)


def _trace(item: dict[str, Any]) -> str:
    failed = f"  {item['errorCount']} failed" if item["errorCount"] else ""
    return (
        f"{item['start'][11:23]}  {item['traceId']}  {item['durationMs']:9.1f} ms"
        f"  {item['spanCount']:3} spans  {item['rpc'] or item['name']}{failed}"
    )


def _log(item: dict[str, Any]) -> str:
    facts = " ".join(
        f"{name}={value}"
        for name, value in item["attributes"].items()
        if name not in {"service", "instance"}
    )
    who = item["instance"] or item["service"]
    return f"{item['at'][11:23]}  {item['level']:7}  {who:12}  {item['message']}  {facts}"


def _waterfall(whole: dict[str, Any]) -> Iterator[str]:
    """Yield a line per span: who, a bar on the time of the trace, how long."""
    spans = whole["spans"]
    begin = min(span["startUs"] for span in spans)
    length = max(span["startUs"] + span["durationMs"] * 1000 for span in spans) - begin or 1
    yield f"{whole['rpc'] or whole['name']}  {whole['durationMs']:.1f} ms  {whole['traceId']}"
    for span in spans:
        start = int((span["startUs"] - begin) / length * BAR)
        width = max(1, round(span["durationMs"] * 1000 / length * BAR))
        mark = "!" if span["status"] == "error" else "░" if span["proxy"] else "█"
        bar = (" " * start + mark * width)[:BAR]
        name = f"{span['service']} {span['name'].rpartition('.')[2]}"
        yield f"{name[:44]:44} {bar:{BAR}} {span['durationMs']:8.1f} ms {span['code']}"


_LEAST_WIDTH = {
    **dict.fromkeys(("p50", "p99", "budget"), 90),
    **dict.fromkeys(("calls/s", "in flight", "cert", "objective", "burn"), 64),
    "up": 40,
}
"""From which width of a terminal on a column is shown; those not named always are."""


def _table(width: int, rows: Iterable[dict[str, str]]) -> "Table":
    """Return a table of the columns that *width* has room for: a cut number would be wrong."""
    from rich.table import Table
    from rich.text import Text

    told = list(rows)
    table = Table(box=None, pad_edge=False)
    shown = [name for name in (told[0] if told else ()) if _LEAST_WIDTH.get(name, 0) <= width]
    for number, column in enumerate(shown):
        table.add_column(column, justify="right" if number else "left", no_wrap=bool(number))
    for row in told:
        first, *rest = (row[name] for name in shown)
        table.add_row(Text(first, no_wrap=True, overflow="ellipsis"), *map(Text, rest))
    return table


def _services(items: list[dict[str, Any]], width: int) -> "Table":
    return _table(
        width,
        (
            {
                "service": item["service"],
                "up": f"{sum(p['up'] for p in item['processes'])}/{len(item['processes'])}",
                "calls/s": f"{item['rate']:.2f}",
                "failed": f"{item['errorRatio']:.2%}",
                **_quantiles(item),
                "in flight": "–" if item["saturation"] is None else f"{item['saturation']:.0%}",
                "cert": _days(item["certificateDays"]),
            }
            for item in items
        ),
    )


def _alerts(overview: dict[str, Any]) -> Iterator["Text"]:
    """Yield a line per alert that fires: the console's own, and those of the servers."""
    from rich.text import Text

    firing = [a for a in overview["serverAlerts"] if a["state"] == "firing"]
    for alert in (*firing, *overview["alerts"]):
        yield Text.assemble((alert["name"], "bold red"), " ", alert["message"])


def _methods(items: list[dict[str, Any]], width: int) -> "Table":
    return _table(
        width,
        (
            {
                "method": f"{item['service']}.{item['method']}",
                "calls/s": f"{item['rate']:.2f}",
                "failed": f"{item['errorRatio']:.2%}",
                **_quantiles(item),
                **_promised(item),
            }
            for item in items
        ),
    )


def _promised(item: dict[str, Any]) -> dict[str, str]:
    objective = item.get("objective")
    if not objective:
        return dict.fromkeys(("objective", "budget", "burn"), "–")
    return {
        "objective": f"{objective['latencyMs']:g} ms",
        "budget": f"{max(0.0, item['budgetLeft']):.0%}",
        "burn": f"{item['burnRates']['1h']:.1f}",
    }


def _quantiles(item: dict[str, Any]) -> dict[str, str]:
    return {name: _ms(item[f"{name}Ms"]) for name in ("p50", "p95", "p99")}


def _days(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} d"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
