"""
Derives the edges of the service graph from incoming spans.

A call crosses workloads where a span's parent belongs to another workload, however many spans
client, proxies and server report. Parents may arrive after their children and in other batches,
so both are held for a while.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from mesh.console import naming
from mesh.console.store.rows import Span

MOST_KNOWN = 60_000
MOST_SIBLINGS = 64
PATIENCE = 30_000_000
"""How long a span waits for its parent, in microseconds."""
OUTSIDE = "browser"
GATEWAY = "gateway"


class Edge(NamedTuple):
    """One call from *source* to *target* in a minute; flags are 0 or 1."""

    minute: int
    source: str
    target: str
    rpc: str
    error: int
    refused: int


class Edges:
    """Finds edges; holds the last `MOST_KNOWN` spans and as many waiting children."""

    def __init__(self, most: int = MOST_KNOWN) -> None:
        self._most = most
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._waiting: OrderedDict[bytes, tuple[int, list[Edge]]] = OrderedDict()

    def see(self, spans: Iterable[Span], *, now: int) -> list[Edge]:
        """Add *spans* and return the calls that are complete at *now* (microseconds)."""
        found: list[Edge] = []
        for span in spans:
            if span.probe:
                continue
            workload = naming.workload(span.service)
            self._known[span.span_id] = workload
            _, children = self._waiting.pop(span.span_id, (0, ()))
            found += [
                child._replace(source=workload) for child in children if child.target != workload
            ]
            found += self._from(span, workload, now)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return found + self._given_up(now)

    def _from(self, span: Span, workload: str, now: int) -> list[Edge]:
        refused = int(span.code in naming.REFUSED)
        # A caller of the gateway without a span is a browser. Browsers do not call rpcs: such a
        # span belongs to the gateway's own call, reported by its outbound proxy.
        outside = workload == GATEWAY and span.kind == naming.SERVER and not span.rpc
        source = span.peer or (OUTSIDE if outside else "")
        edge = Edge(span.start // 60_000_000, source, workload, span.rpc, span.error, refused)
        if span.kind == naming.CLIENT and span.peer:
            return [edge._replace(source=workload, target=span.peer, rpc="")]
        if span.kind != naming.SERVER:
            return []
        if not span.parent_id:
            return [edge] if source else []
        parent = self._known.get(span.parent_id)
        if parent is None:
            _, waiting = self._waiting.setdefault(span.parent_id, (now + PATIENCE, []))
            if len(waiting) < MOST_SIBLINGS:
                waiting.append(edge)
            return []
        return [] if parent == workload else [edge._replace(source=parent)]

    def _given_up(self, now: int) -> list[Edge]:
        """Return calls whose parent did not arrive, with the caller that the service identified."""
        found: list[Edge] = []
        while self._waiting:
            until, edges = next(iter(self._waiting.values()))
            if until > now and len(self._waiting) <= self._most:
                break
            self._waiting.popitem(last=False)
            found += [edge for edge in edges if edge.source and edge.source != edge.target]
        return found
