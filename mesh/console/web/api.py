"""The JSON API of the pages and the terminal."""

import asyncio
import math
import shutil
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from mesh.chassis import background
from mesh.console.clock import rfc3339
from mesh.console.context import Context
from mesh.console.incidents import incident_log
from mesh.console.queries import (
    facets,
    incident_page,
    logs,
    mesh_status,
    objectives,
    overview,
    process_list,
    run_history,
    service_graph,
    time_series,
    trace_analysis,
    traces,
)
from mesh.console.queries.logs import Search as LogSearch
from mesh.console.queries.traces import Search
from mesh.console.store.call_edges import GATEWAY
from mesh.console.store.intake_counters import HARMLESS, REASONS
from mesh.console.store.reader import BadRequestError
from mesh.console.web import control_actions, live_tail
from mesh.console.web.errors import NotFoundError, UnavailableError
from mesh.console.web.parameters import Query, identifier

EXPORTED = "amarre-telemetry.sqlite"
_RANGE = ("window", "from", "to")
_TIMES = ("from", "to", "since", "until")
_PAGING = ("limit", "page_token", "pageToken", "follow")
_TRACE_FILTERS = ("service", "rpc", "status", "min_ms", "max_ms", "attr", "q", "probes", *_TIMES)
_LOG_FILTERS = ("trace_id", "service", "level", "kind", "q", *_TIMES)

Answer = dict[str, Any] | Response


class Api:
    """The API endpoints of a running console."""

    def __init__(self, context: Context) -> None:
        self._c = context

    def routes(self) -> list[Route]:
        """Return the routes, all under ``/api``."""
        endpoints: dict[str, Callable[[Request], Awaitable[Answer]]] = {
            "/api/overview": self.overview,
            "/api/incidents": self.incidents,
            "/api/incidents/{id}": self.incident,
            "/api/graph": self.graph,
            "/api/traces": self.traces,
            "/api/traces/facets": self.facets,
            "/api/traces/{trace_id}": self.trace,
            "/api/traces/{trace_id}/spans/{span_id}": self.span,
            "/api/logs": self.logs,
            "/api/metrics": self.metrics,
            "/api/metrics/{rpc:path}": self.method,
            "/api/series": self.series,
            "/api/mesh": self.mesh,
            "/api/processes": self.processes,
            "/api/intake": self.intake,
            "/api/runs": self.runs,
            "/api/export": self.export,
        }
        return [Route(path, _as_json(endpoint)) for path, endpoint in endpoints.items()]

    async def overview(self, request: Request) -> Answer:
        """Services between ``from`` and ``to``, with firing incidents and alerts."""
        c, query = self._c, Query(request.query_params, _RANGE)
        since, now = query.span(c.now(), "5m")
        window = _duration(since, now)
        items = await c.reader.run(
            lambda db: overview.services(
                db, c.mesh, c.seen, c.certs, c.clocks, now=now, window=window
            )
        )
        if any(item["canaryWeight"] for item in items):
            verdicts = await control_actions.verdicts(c)
            for item in items:
                item["canaryVerdict"] = verdicts.get(item["service"], "")
        await c.evaluator.evaluate(c)
        return _list(items) | {
            "incidents": [one.to_json() for one in c.evaluator.incidents.firing()],
            "alerts": [one.to_json() for one in c.evaluator.alerts],
            "serverAlerts": c.watch.alerts(),
            "alertServers": c.watch.described(),
            "fault": c.writer.fault,
            "failingTasks": background.failing(),
            "at": rfc3339(now),
        }

    async def incidents(self, request: Request) -> Answer:
        """Incidents between ``from`` and ``to``, firing ones first."""
        query = Query(request.query_params, ["from", "to", "state"])
        since, until = query.span(self._c.now(), default="24h")
        state = query.one_of("state", "firing", "resolved")
        found = await self._c.reader.run(
            lambda db: incident_log.stored(db, since=since, until=until)
        )
        # Memory is ahead of the file, and the only source while the file cannot be written.
        live = [one for one in self._c.evaluator.incidents.firing() if one.since <= until]
        known = {one.id for one in live}
        items = [
            *(one.to_json() for one in live),
            *(one for one in found if one["id"] not in known and one["state"] == "resolved"),
        ]
        return _list([one for one in items if state in ("", one["state"])])

    async def incident(self, request: Request) -> Answer:
        """One incident with its contracts, calls and control actions."""
        Query(request.query_params, [])
        c = self._c
        key = c.evaluator.incidents.current(request.path_params["id"])
        live = next((one for one in c.evaluator.incidents.firing() if one.id == key), None)
        found = live.to_json() if live else await c.reader.run(lambda db: incident_log.one(db, key))
        if found is None:
            raise NotFoundError(
                "There is no incident with this id, or it has expired; GET /api/incidents lists "
                "them."
            )
        return await c.reader.run(lambda db: incident_page.detail(db, c.mesh, found, now=c.now()))

    async def graph(self, request: Request) -> Answer:
        """Declared and observed edges."""
        c, query = self._c, Query(request.query_params, _RANGE)
        since, until = query.span(c.now(), "15m")
        window = _duration(since, until)
        return _list(
            await c.reader.run(lambda db: service_graph.edges(db, c.mesh, now=until, window=window))
        )

    async def traces(self, request: Request) -> Answer:
        """Matching traces, newest first; ``follow=true`` streams new ones."""
        query = Query(request.query_params, (*_TRACE_FILTERS, *_PAGING))
        wanted = self._trace_search(query)
        if query.follow():
            new = live_tail.new_traces(self._c.reader, wanted, wanted.since or self._c.now())
            explained = (mesh_status.explained(items, self._c.seen) async for items in new)
            return live_tail.stream(explained, self._c.stopping)
        items, token = await self._c.reader.run(lambda db: traces.search(db, wanted))
        return _list(mesh_status.explained(items, self._c.seen), token)

    async def facets(self, request: Request) -> Answer:
        """Distribution of the matching traces over services, methods and outcomes."""
        wanted = self._trace_search(Query(request.query_params, _TRACE_FILTERS))
        return await self._c.reader.run(lambda db: facets.of(db, wanted))

    def _trace_search(self, query: Query) -> Search:
        since, until = query.times(self._c.now())
        least, most = query.milliseconds("min_ms") or 0, query.milliseconds("max_ms")
        if most is not None and least > most:
            raise BadRequestError("min_ms must not be larger than max_ms.")
        return Search(
            service=query.text("service"),
            rpc=_rpc(self._c, query.text("rpc")),
            status=query.one_of("status", "ok", "error"),
            min_duration=least,
            max_duration=most,
            attribute=query.attribute("attr"),
            text=query.part("q"),
            since=since,
            until=until,
            probes=query.flag("probes"),
            limit=query.integer("limit", 50, most=500),
            token=query.page_token(),
        )

    async def trace(self, request: Request) -> Answer:
        """One trace with its spans."""
        Query(request.query_params, [])
        trace_id = identifier(request, "trace_id")
        found = await self._c.reader.run(lambda db: traces.one(db, trace_id))
        if found is None:
            raise NotFoundError(
                "There is no trace with this id; it was not received or has been evicted."
            )
        return found

    async def span(self, request: Request) -> Answer:
        """The rank of one span's duration among those of its kind."""
        Query(request.query_params, [])
        trace_id = identifier(request, "trace_id")
        span_id = identifier(request, "span_id")
        found = await self._c.reader.run(
            lambda db: trace_analysis.rank_of_span(db, trace_id, span_id)
        )
        if found is None:
            raise NotFoundError("There is no span with this id in this trace.")
        return {"rank": found}

    async def logs(self, request: Request) -> Answer:
        """Matching log records, newest first; ``follow=true`` streams new ones."""
        query = Query(request.query_params, (*_LOG_FILTERS, *_PAGING))
        since, until = query.times(self._c.now())
        wanted = LogSearch(
            trace_id=query.text("trace_id"),
            service=query.text("service"),
            level=query.text("level"),
            kind=query.one_of("kind", "access", "error", "slow", "security", "event"),
            text=query.part("q"),
            since=since,
            until=until,
            limit=query.integer("limit", 100, most=1000),
            token=query.page_token(),
        )
        if query.follow():
            last = await self._c.reader.run(lambda db: logs.start(db, wanted))
            return live_tail.stream(
                live_tail.new_logs(self._c.reader, wanted, last), self._c.stopping
            )
        items, token = await self._c.reader.run(lambda db: logs.search(db, wanted))
        return _list(items, token)

    async def metrics(self, request: Request) -> Answer:
        """Every method with its objective."""
        c, query = self._c, Query(request.query_params, [*_RANGE, "service"])
        service = query.one_of("service", GATEWAY, *(one.name for one in c.mesh.services))
        since, until = query.span(c.now(), "15m")
        window, now = _duration(since, until), until // 1_000_000
        items = await c.reader.run(
            lambda db: objectives.methods(db, c.mesh, now=now, window=window)
        )
        return _list([item for item in items if service in ("", item["service"])])

    async def method(self, request: Request) -> Answer:
        """One method or route over time, with example calls."""
        c, query = self._c, Query(request.query_params, _RANGE)
        since, until = query.span(c.now(), "1h")
        rpc = request.path_params["rpc"]
        declared = rpc in {method.short_name for method in c.mesh}
        if not declared and not await c.reader.run(lambda db: objectives.is_known(db, rpc)):
            raise NotFoundError(
                f"There is no method or route {rpc[:80]}; GET /api/metrics lists them, "
                "for example survey.ListRequests."
            )
        window, now = _duration(since, until), until // 1_000_000
        items = await c.reader.run(lambda db: objectives.history(db, rpc, now=now, window=window))
        shown = await c.reader.run(lambda db: objectives.exemplars(db, rpc, now=now, window=window))
        return _list(items) | {"exemplars": shown}

    async def series(self, request: Request) -> Answer:
        """Time series: their names, or the points of one name."""
        query = Query(request.query_params, ["name", "process", *_RANGE])
        name, process = query.text("name"), query.text("process")
        since, until = query.span(self._c.now(), "1h")
        if not name:
            return _list(await self._c.reader.run(lambda db: time_series.names(db, process)))
        return _list(
            await self._c.reader.run(lambda db: time_series.points(db, name, process, since, until))
        )

    async def mesh(self, request: Request) -> Answer:
        """Processes, proxies, certificates, breakers, ejections, weights, faults, policies."""
        Query(request.query_params, [])
        c, now = self._c, self._c.now()
        return {
            "processes": mesh_status.processes(c.seen, c.clocks),
            "proxies": mesh_status.proxies(c.seen),
            "certificates": mesh_status.certificates(c.seen, c.certs, now=now),
            "breakers": mesh_status.of_proxies(c.seen, "breakers"),
            "ejections": mesh_status.ejections(c.seen),
            "weights": mesh_status.of_proxies(c.seen, "weights"),
            "faults": mesh_status.of_proxies(c.seen, "faults"),
            "policies": [mesh_status.policy(method) for method in c.mesh],
        }

    async def processes(self, request: Request) -> Answer:
        """Processes and proxies: versions, restarts, delays, certificates, limits."""
        Query(request.query_params, [])
        c, now = self._c, self._c.now()
        delays = await c.reader.run(lambda db: process_list.loop_delays(db, now=now))
        return _list(process_list.listed(c, delays, now=now))

    async def intake(self, request: Request) -> Answer:
        """Received telemetry, and losses by reason."""
        Query(request.query_params, [])
        c = self._c
        kept = await c.reader.run(
            lambda db: [
                dict(row)
                for row in db.execute(
                    "SELECT name AS service, spans, span_bytes AS spanBytes, logs,"
                    " log_bytes AS logBytes FROM services ORDER BY name"
                )
            ]
        )
        dropped = [
            {
                "signal": one.signal,
                "reason": one.reason,
                "meaning": REASONS[one.reason],
                "harmless": one.reason in HARMLESS,
                "service": one.service,
                "count": one.count,
                "last": rfc3339(one.last),
            }
            for one in c.intake.dropped()
        ]
        return {
            "received": c.intake.received(),
            "dropped": dropped,
            "kept": kept,
            "fault": c.writer.fault,
        }

    async def runs(self, request: Request) -> Answer:
        """The last runs, with a summary of each method."""
        query = Query(request.query_params, ["from", "to"])
        since, until = query.times(self._c.now())
        return _list(
            [
                run
                for run in await self._c.reader.run(run_history.last)
                if run["seen"] >= rfc3339(since) and (not until or run["started"] <= rfc3339(until))
            ]
        )

    async def export(self, request: Request) -> Answer:
        """All stored telemetry, as a file that `amarre import` opens."""
        Query(request.query_params, [])
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="amarre-console-"))
        copy = folder / EXPORTED
        try:
            await self._c.reader.run(lambda db: db.execute("VACUUM INTO ?", (str(copy),)))
        except sqlite3.Error as exc:
            await asyncio.to_thread(shutil.rmtree, folder)
            raise UnavailableError(
                f"The copy could not be written ({exc}); free some disk space."
            ) from exc
        return FileResponse(
            copy,
            media_type="application/vnd.sqlite3",
            filename=EXPORTED,
            background=BackgroundTask(shutil.rmtree, folder),
        )


def _as_json(
    endpoint: Callable[[Request], Awaitable[Answer]],
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        found = await endpoint(request)
        if isinstance(found, Response):
            return found
        try:
            return JSONResponse(found)
        except ValueError:
            return JSONResponse(_finite(found))

    return answer


def _finite(found: Any) -> Any:
    """Return *found* with null for numbers that JSON cannot express, such as overflown sums."""
    match found:
        case dict():
            return {key: _finite(value) for key, value in found.items()}
        case list() | tuple():
            return [_finite(value) for value in found]
        case float() if not math.isfinite(found):
            return None
    return found


def _list(items: list[dict[str, Any]], token: str = "") -> dict[str, Any]:
    return {"items": items, "nextPageToken": token}


def _rpc(context: Context, text: str) -> str:
    """Return the name of an rpc as it is stored with spans, from either form."""
    method = context.mesh.by_path.get(f"/{text.removeprefix('/')}")
    if method is not None:
        return method.short_name
    bare = [m.short_name for m in context.mesh if m.name == text]
    return bare[0] if bare else text


def _duration(since: int, until: int) -> timedelta:
    return timedelta(seconds=max(1, (until - since) // 1_000_000))
