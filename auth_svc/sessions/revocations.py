"""Pushes revoked sessions to the services that hold tokens of them."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable
from datetime import timedelta

import structlog

from auth_svc.ports import Clock, Revocation, RevocationStore
from mesh.chassis.errors import UnavailableError

log = structlog.get_logger("revocations")

KEPT = timedelta(seconds=90)
"""How long revocations are kept: the 60 s lifetime of tokens, plus a margin for clock skew."""
OVERLAP = timedelta(seconds=5)
"""Positions may become visible out of order; each poll rereads this far back."""
POLL_SECONDS = 0.5
"""The interval at which replicas poll each other's revocations."""
HEARTBEAT_SECONDS = 5.0

Listener = Callable[[Revocation], None]


class Revocations:
    """
    Revocations of all replicas, in the order in which this one receives them.

    Local revocations are pushed at once; those of other replicas or administration commands at the
    next poll of the store.
    """

    def __init__(self, store: RevocationStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._positions: dict[int, Revocation] = {}
        self._recent: dict[tuple[str, str], Revocation] = {}
        self._watchers: set[asyncio.Queue[Revocation]] = set()
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Call *listener* with each new revocation."""
        self._listeners.append(listener)

    async def revoke(self, session_ids: Iterable[str]) -> None:
        """Push the end of the sessions."""
        await self._publish([Revocation(one, "", self._clock()) for one in session_ids])

    async def user_changed(self, user_id: str) -> None:
        """Push the invalidation of the user's cached verifications."""
        await self._publish([Revocation("", user_id, self._clock())])

    async def _publish(self, added: list[Revocation]) -> None:
        if not added:
            return
        for one in added:
            self._push(one)
        try:
            await self._store.add(added)
        except UnavailableError as exc:
            # The session has ended anyway; other replicas reject it when its token expires.
            log.error("revocation not stored", count=len(added), reason=str(exc))  # noqa: TRY400

    def __contains__(self, session_id: object) -> bool:
        """Return whether the session was revoked within `KEPT`."""
        return (session_id, "") in self._recent

    async def watch(self) -> AsyncGenerator[list[Revocation], None]:
        """Yield the revocations within `KEPT`, then new ones; an empty list is a heartbeat."""
        queue: asyncio.Queue[Revocation] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            yield list(self._recent.values())
            while True:
                found = []
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        found.append(await queue.get())
                except TimeoutError:
                    pass
                while not queue.empty():
                    found.append(queue.get_nowait())
                yield found
        finally:
            self._watchers.discard(queue)

    async def follow(self) -> None:
        """Poll the store until cancelled."""
        while True:
            # The health check of the database reports an outage; the next poll catches up.
            with contextlib.suppress(UnavailableError):
                await self.poll()
            await asyncio.sleep(POLL_SECONDS)

    async def poll(self) -> None:
        """Push the stored revocations that this replica has not seen."""
        now = self._clock()
        settled = [position for position, one in self._positions.items() if one.at < now - OVERLAP]
        for key in [key for key, one in self._recent.items() if one.at <= now - KEPT]:
            del self._recent[key]
        found = await self._store.after(max(settled, default=0), since=now - KEPT)
        fresh = [one for position, one in found.items() if position not in self._positions]
        # Of settled positions, only the last one matters.
        for position in sorted(settled)[:-1]:
            del self._positions[position]
        self._positions |= found
        for one in fresh:
            known = self._recent.get((one.session_id, one.user_id))
            # The store also returns this replica's own revocations.
            if known is None or one.at > known.at:
                self._push(one)

    def _push(self, one: Revocation) -> None:
        self._recent[one.session_id, one.user_id] = one
        for listener in self._listeners:
            listener(one)
        for queue in self._watchers:
            queue.put_nowait(one)
