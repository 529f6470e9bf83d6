"""The whole product as a side of a comparison."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import psutil

from benchmarks.harness.load import Side
from benchmarks.sides.bare import child

SAMPLED = "0.05"


@contextlib.asynccontextmanager
async def product(
    folder: Path,
    name: str,
    port_base: int,
    *options: str,
    program: Sequence[str] = ("-m", "mesh.cli"),
    **variables: str,
) -> AsyncIterator[Side]:
    """Start the whole product, signed in.

    Args:
        folder: Where its data folder *name* is created.
        name: The name of the side.
        port_base: The first port.
        options: Options of ``amarre up``.
        program: Python's arguments that run ``amarre``.
        variables: Environment variables. Default: 5 % of traces are sampled.
    """
    ready = folder / f"{name}.json"
    environment = os.environ | {
        "AMARRE_RATE_LIMITS": "off",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": SAMPLED,
    }
    command = (
        *(sys.executable, *program, "up", "--port-base", str(port_base)),
        *("--data", str(folder / name), "--ready-file", str(ready), *options),
    )
    with child(*command, env=environment | variables, stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 240
        while not ready.exists():
            if time.monotonic() > until or process.status() == psutil.STATUS_ZOMBIE:
                raise SystemExit(f"{name} did not start; run {' '.join(command)}")
            await asyncio.sleep(0.2)
        found = json.loads(ready.read_text())
        processes = {p["name"]: psutil.Process(p["pid"]) for p in found["processes"]}
        cookie = await asyncio.to_thread(_sign_in, found["urls"])
        yield Side(
            name, port_base, processes, cookie=cookie, urls=found["urls"], data=folder / name
        )


def _sign_in(urls: dict[str, str]) -> str:
    """Sign in with a magic link and return the cookie."""
    with httpx.Client(
        base_url=urls["app"], headers={"sec-fetch-site": "same-origin"}, trust_env=False, timeout=30
    ) as http:
        http.post("/api/v1/auth/signup", json={"email": "bench@example.org"}).raise_for_status()
        until = time.monotonic() + 60
        while not (mails := httpx.get(f"{urls['outbox']}/messages", trust_env=False).json()):
            if time.monotonic() > until:
                raise SystemExit("No mail arrived.")
            time.sleep(0.2)
        query = parse_qs(urlsplit(mails[0]["links"][0]).query)
        body = {"userId": query["userId"][0], "secret": query["secret"][0]}
        answer = http.post("/api/v1/auth/login", json=body).raise_for_status()
        cookie = answer.headers["set-cookie"].partition(";")[0]
        proof = {"cookie": cookie}
        http.post("/api/v1/surveys/requests", json={"consent": True}, headers=proof)
        return cookie
