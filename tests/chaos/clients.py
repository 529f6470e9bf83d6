"""Clients who create a request each and list their requests repeatedly."""

import asyncio
import itertools
import secrets
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.chaos.history import History, Operation

PERSON_EVERY_SECONDS = 1.0
LIST_EVERY_SECONDS = 1.0
REPEAT_SECONDS = 0.2
ANSWER_SECONDS = 60.0
"""When a client gives up waiting, which is later than any answer may be."""
PATIENCE_SECONDS = 90.0
"""How long a person repeats a step until it succeeds."""


class People:
    """A steady load: a new client every second, each with one creation and many lists."""

    def __init__(self, ready: Any, history: History) -> None:
        self._app = ready["urls"]["app"]
        self._outbox = ready["urls"]["outbox"]
        self._history = history

    async def run(self, stop: asyncio.Event) -> None:
        """Start clients until *stop*; then wait until each has created its request."""
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                group.create_task(self._person(f"person-{number}@example.org", stop))
                try:
                    await asyncio.wait_for(stop.wait(), PERSON_EVERY_SECONDS)
                except TimeoutError:
                    continue
                return

    async def _person(self, email: str, stop: asyncio.Event) -> None:
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            async with httpx.AsyncClient(
                base_url=self._app,
                headers={"origin": self._app},
                timeout=ANSWER_SECONDS,
                trust_env=False,
            ) as client:
                await self._sign_in(client, email)
                # Whoever does not know how a creation ended repeats it with the same key.
                key = secrets.token_hex(16)
                while not (await self._create(client, email, key)).succeeded:
                    await asyncio.sleep(REPEAT_SECONDS)
                while not stop.is_set():
                    await self._list(client, email)
                    await asyncio.sleep(LIST_EVERY_SECONDS)
                while not (await self._list(client, email)).succeeded:
                    await asyncio.sleep(REPEAT_SECONDS)

    async def _sign_in(self, client: httpx.AsyncClient, email: str) -> None:
        """Request links and follow the newest one, until one works."""
        while True:
            try:
                await client.post("/api/v1/auth/signup", json={"email": email})
                for _ in range(20):
                    mails = (await client.get(f"{self._outbox}/messages")).json()
                    mine = [mail for mail in mails if email in str(mail["to"])]
                    if mine:
                        break
                    await asyncio.sleep(0.1)
                query = parse_qs(urlsplit(mine[0]["links"][0]).query) if mine else {}
                body = {name: query[name][0] for name in ("userId", "secret")} if query else {}
                answer = await client.post("/api/v1/auth/login", json=body)
                if answer.is_success:
                    client.headers["cookie"] = answer.headers["set-cookie"].partition(";")[0]
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(REPEAT_SECONDS)

    async def _create(self, client: httpx.AsyncClient, email: str, key: str) -> Operation:
        return await self._do(
            client,
            email,
            "create",
            client.build_request(
                "POST",
                "/api/v1/surveys/requests",
                json={"consent": True},
                headers={"idempotency-key": key},
            ),
        )

    async def _list(self, client: httpx.AsyncClient, email: str) -> Operation:
        request = client.build_request("GET", "/api/v1/surveys/requests")
        return await self._do(client, email, "list", request)

    async def _do(
        self, client: httpx.AsyncClient, email: str, kind: str, request: httpx.Request
    ) -> Operation:
        began, status = time.monotonic(), 0
        ids: tuple[str, ...] = ()
        try:
            answer = await client.send(request)
            status = answer.status_code
            if answer.is_success:
                ids = _ids(answer.json()["data"])
        except httpx.TransportError:
            pass
        done = Operation(email, kind, began, time.monotonic(), status, ids)
        self._history.operations.append(done)
        return done


def _ids(data: Any) -> tuple[str, ...]:
    return tuple(str(one["id"]) for one in (data if isinstance(data, list) else [data]))
