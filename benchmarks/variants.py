"""The product with other settings, compared with 5 % of traces sampled in the same rounds."""

import contextlib
from pathlib import Path
from typing import Any

from benchmarks.harness.load import Slice, get, measure, measure_idle
from benchmarks.harness.summary import row
from benchmarks.sides import bare
from benchmarks.sides.product import product

VARIANTS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "5 % of traces": ((), {}),
    "OpenTelemetry off": ((), {"OTEL_SDK_DISABLED": "true"}),
    "100 % of traces": ((), {"OTEL_TRACES_SAMPLER_ARG": "1.0"}),
    "--replicas gateway=2": (("--replicas", "gateway=2"), {}),
}
"""Options of ``amarre up`` and environment variables."""
_SECONDS, _SETTLE_SECONDS = 2.5, 5.0
"""Processes export spans every five seconds: that CPU time belongs to the requests before."""


async def compare(
    folder: Path, port_base: int, *, rounds: int, at_once: int
) -> list[dict[str, Any]]:
    """Measure all variants in turn; the first one is the reference."""
    async with contextlib.AsyncExitStack() as stack:
        sides = [
            await stack.enter_async_context(
                product(folder, f"variant{at}", port_base + 500 * at, *options, **variables)
            )
            for at, (options, variables) in enumerate(VARIANTS.values())
        ]
        sent = [get("me", bare.PATH, [side.cookie]) for side in sides]
        for side, workload in zip(sides, sent, strict=True):
            await measure(side, workload, seconds=2, at_once=at_once)
        await measure_idle(sides)
        found: list[list[Slice]] = [[] for _ in sides]
        for _ in range(rounds // 2):
            for side, workload, slices in zip(sides, sent, found, strict=True):
                slices.append(
                    await measure(
                        side, workload, seconds=_SECONDS, at_once=at_once, settle=_SETTLE_SECONDS
                    )
                )
    return [
        {"variant": name, "idle_percent": round(side.idle_percent, 1), **row(slices, found[0])}
        for name, side, slices in zip(VARIANTS, sides, found, strict=True)
    ]
