"""Cost of a request: the whole product with its defaults compared with bare parts.

    python -m benchmarks.gateway_cost [--parts paths,sessions] [--rounds 8] [--seconds 0.3]

Each part is described in its module:

- paths: every path, ``amarre up`` and ``amarre up --direct`` compared with `benchmarks.sides.bare`;
- sessions: 3,000 sessions in rotation, `benchmarks.rotation`;
- growth: with cores, rates and records, `benchmarks.growth`;
- variants: telemetry off or complete, two gateways, `benchmarks.variants`;
- chassis: mTLS, tokens, validation and limits by themselves, `benchmarks.chassis_cost`.

The sides of a part alternate in short slices, so that other work on the machine affects all of
them alike. Figures are CPU microseconds per request and process, rates, and latencies.
``make bench`` measures everything in about eight minutes and writes ``benchmarks/results.json``
and ``benchmarks/RESULTS.md``; parts that are left out keep their previous figures and date.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import chassis_cost, growth, rotation, variants
from benchmarks.harness import paths
from benchmarks.harness.load import Side
from benchmarks.harness.population import Population, populate
from benchmarks.harness.report import page
from benchmarks.sides import bare, grpc_gateway
from benchmarks.sides.product import SAMPLED, product
from mesh.chassis.telemetry import logs

FOLDER = Path(__file__).parent
PARTS = ("paths", "sessions", "growth", "variants", "chassis")
ROTATION_SECONDS = 60.0
"""The lifetime of a user token."""
GROWTH_SECONDS = 3.0


Part = tuple[str, dict[str, Any]]
"""The name of a part and its report."""


async def compare(asked: argparse.Namespace) -> AsyncGenerator[Part, None]:
    """Measure the parts that *asked* names."""
    if {"paths", "sessions", "growth"} & set(asked.parts):
        async with contextlib.AsyncExitStack() as stack:
            async for part in _requests(stack, asked):
                yield part
    if "variants" in asked.parts:
        with tempfile.TemporaryDirectory() as name:
            rows = await variants.compare(
                Path(name), asked.port_base, rounds=asked.rounds, at_once=asked.at_once
            )
        yield "variants", {"rows": rows}
    if "chassis" in asked.parts:
        yield "chassis", await chassis_cost.measure()


async def _requests(
    stack: contextlib.AsyncExitStack, asked: argparse.Namespace
) -> AsyncIterator[Part]:
    """Measure what needs the product with and without proxies."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    plain = await stack.enter_async_context(bare.sides(folder))
    direct = product(folder, "direct", asked.port_base, "--direct")
    sidecars = product(folder, "sidecars", asked.port_base + 500)
    products = [
        (side, await populate(side))
        for side in [await stack.enter_async_context(one) for one in (direct, sidecars)]
    ]
    if "paths" in asked.parts:
        yield "paths", await _paths(plain, products, asked)
    if "sessions" in asked.parts:
        sides = [
            await rotation.compare(
                side, people, lasting=ROTATION_SECONDS, round_seconds=5, at_once=asked.at_once
            )
            for side, people in products
        ]
        yield "sessions", {"sides": sides}
    if "growth" in asked.parts:
        side, people = products[-1]
        yield (
            "growth",
            await growth.grow(side, people, seconds=GROWTH_SECONDS, at_once=asked.at_once),
        )


async def _paths(
    plain: Sequence[Side], products: Sequence[tuple[Side, Population]], asked: argparse.Namespace
) -> dict[str, Any]:
    rows = await paths.compare(
        plain, products, rounds=asked.rounds, seconds=asked.seconds, at_once=asked.at_once
    )
    idle = {side.name: round(side.idle_percent, 1) for side, _ in products}
    has_go = any(side.name == "grpc-gateway" for side in plain)
    note = "" if has_go else grpc_gateway.ABSENT
    return {"idle_percent": idle, "note": note, "rows": rows}


def _signed(part: dict[str, Any], asked: argparse.Namespace) -> dict[str, Any]:
    """Return *part* with when, where and how it was measured."""
    return {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "load_average": round(os.getloadavg()[1], 1),
        "settings": {
            "rounds": asked.rounds,
            "seconds": asked.seconds,
            "at_once": asked.at_once,
            "sampled": SAMPLED,
        },
        **part,
    }


def _parts(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(PARTS):
        raise argparse.ArgumentTypeError(
            f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}"
        )
    return names


async def _run(asked: argparse.Namespace) -> str:
    """Measure, and write the results after each part; return the page."""
    file, text = asked.output / "results.json", ""
    known = json.loads(file.read_text()) if file.exists() else {}
    report = {name: part for name, part in known.items() if name in PARTS}
    async with contextlib.aclosing(compare(asked)) as parts:
        async for name, part in parts:
            report[name] = _signed(part, asked)
            file.write_text(json.dumps(report, indent=2) + "\n")
            text = page(report)
            (asked.output / "RESULTS.md").write_text(text)
    return text


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=_parts, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.3, help="Length of a slice.")
    parser.add_argument("--at-once", type=int, default=16, help="Number of connections.")
    parser.add_argument("--port-base", type=int, default=7000)
    parser.add_argument("--output", type=Path, default=FOLDER, help="Folder of the results.")
    asked = parser.parse_args()
    logs.configure_logs("bench", "bench", "ERROR")
    sys.stdout.write(asyncio.run(_run(asked)))


if __name__ == "__main__":
    main()
