"""
Who called whom: edges of the graph from spans, as they come.

A call crosses from one workload to another exactly where a span's parent belongs to another
workload, whatever number of spans its client, its proxies and its server make. Parents may come
after their children and in other batches, so both wait for one another for a while.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from mesh.console import naming
from mesh.console.store.rows import Span

MOST_KNOWN = 60_000
MOST_SIBLINGS = 64
PATIENCE = 30_000_000
"""How long a child waits for its parent, in microseconds."""
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
    """Finds edges; remembers the last `MOST_KNOWN` spans and as many waiting children."""

    def __init__(self, most: int = MOST_KNOWN) -> None:
        self._most = most
        self._known: OrderedDict[bytes, str] = OrderedDict()
        self._waiting: OrderedDict[bytes, tuple[int, list[Edge]]] = OrderedDict()

    def see(self, spans: Iterable[Span], *, now: int) -> list[Edge]:
        """Take in *spans*; return the calls that are known at *now* (microseconds)."""
        found: list[Edge] = []
        for span in spans:
            if span.probe:
                continue
            here = naming.workload(span.service)
            self._known[span.span_id] = here
            _, children = self._waiting.pop(span.span_id, (0, ()))
            found += [child._replace(source=here) for child in children if child.target != here]
            found += self._from(span, here, now)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return found + self._given_up(now)

    def _from(self, span: Span, here: str, now: int) -> list[Edge]:
        refused = int(span.code in naming.REFUSED)
        # Whoever has no span of its own in front of the gateway is a browser. Browsers call no rpc:
        # such a span is that of the gateway's own call, in the proxy through which it leaves.
        outside = here == GATEWAY and span.kind == naming.SERVER and not span.rpc
        source = span.peer or (OUTSIDE if outside else "")
        edge = Edge(span.start // 60_000_000, source, here, span.rpc, span.error, refused)
        if span.kind == naming.CLIENT and span.peer:
            return [edge._replace(source=here, target=span.peer, rpc="")]
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
        return [] if parent == here else [edge._replace(source=parent)]

    def _given_up(self, now: int) -> list[Edge]:
        """Return edges whose parent did not come, with the caller that the service named."""
        found: list[Edge] = []
        while self._waiting:
            until, edges = next(iter(self._waiting.values()))
            if until > now and len(self._waiting) <= self._most:
                break
            self._waiting.popitem(last=False)
            found += [edge for edge in edges if edge.source and edge.source != edge.target]
        return found
