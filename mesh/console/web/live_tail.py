"""Live tails: NDJSON streams of new items, until the client disconnects or the console stops."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from starlette.responses import Response, StreamingResponse

from mesh.console.queries import logs, traces
from mesh.console.store.reader import Reader

FOLLOW_SECONDS = 0.3
HEARTBEAT_SECONDS = 10.0
MOST_FOLLOWED = 2000
"""The maximum number of items per batch."""

Batches = AsyncIterator[list[dict[str, Any]]]


def stream(batches: Batches, stopping: asyncio.Event) -> Response:
    """Stream the items of *batches* as NDJSON, with an empty line as a periodic keep-alive."""

    async def lines() -> AsyncIterator[str]:
        silent = 0.0
        yield "\n"  # Flushes the headers.
        async for items in batches:
            silent = 0.0 if items else silent + FOLLOW_SECONDS
            if items:
                yield "".join(json.dumps(item) + "\n" for item in items)
            elif silent > HEARTBEAT_SECONDS:
                silent = 0.0
                yield "\n"
            try:
                await asyncio.wait_for(stopping.wait(), FOLLOW_SECONDS)
            except TimeoutError:
                continue
            return

    return StreamingResponse(lines(), media_type="application/x-ndjson")


async def new_traces(reader: Reader, wanted: traces.Search, since: int) -> Batches:
    """Yield traces that start after *since*, each once, when it has stopped growing."""
    shown = dict[str, None]()
    sizes: dict[str, int] = {}
    while True:
        latest = dataclasses.replace(wanted, since=since, token="", limit=200)
        items, _ = await reader.run(partial(traces.search, wanted=latest))
        ready = []
        for item in reversed(items):
            key, size = item["traceId"], item["spanCount"]
            if key not in shown and sizes.get(key) == size:
                shown[key] = None
                ready.append(item)
            sizes[key] = size
        while len(shown) > 1000:
            del shown[next(iter(shown))]
        if len(sizes) > 5000:
            sizes.clear()
        yield ready


async def new_logs(reader: Reader, wanted: logs.Search, last: int) -> Batches:
    """Yield records written after the record *last*, oldest first."""
    fast = dataclasses.replace(wanted, limit=MOST_FOLLOWED)
    while True:
        items, last = await reader.run(partial(logs.since_id, wanted=fast, last=last))
        yield items
