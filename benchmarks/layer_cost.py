"""Cost of each policy layer of the proxies: CPU time of a request's two Envoys with and without it.

    python -m benchmarks.layer_cost [--layers rbac,jwt] [--rounds 20] [--at-a-time 3]

The whole product runs beside several copies that each lack one layer, and all are measured
alternately on ``GET /api/v1/me``. Takes about a minute per three layers and writes
``benchmarks/results/layers.md``. Layers are removed here only, by changing the rendered
configuration; the product has no such option.
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gateway_cost import FOLDER
from benchmarks.harness.load import Side, get, measure, measure_idle
from benchmarks.harness.report import table
from benchmarks.sides import bare
from benchmarks.sides.product import product
from mesh import cli
from mesh.contract.policy import Mesh
from mesh.render.envoy import Proxy, bootstrap

Remove = Callable[[dict[str, Any]], None]
"""Removes a layer from one object of the configuration."""
PROXIES = ("gateway-envoy", "auth-envoy")


def _filter(*names: str) -> Remove:
    def remove(found: dict[str, Any]) -> None:
        if "http_filters" in found:
            found["http_filters"] = [f for f in found["http_filters"] if f["name"] not in names]

    return remove


def _without_token_rules(found: dict[str, Any]) -> None:
    # Not the whole filter: the product waits until its key set has been fetched.
    if found.get("name") == "envoy.filters.http.jwt_authn":
        found["typed_config"].pop("rules", None)


def _field(*names: str) -> Remove:
    def remove(found: dict[str, Any]) -> None:
        for name in names:
            if not isinstance(found.get(name), str):
                found.pop(name, None)

    return remove


NONE = "none"
"""The name of no layer."""
LAYERS: dict[str, Remove] = {
    NONE: lambda _: None,
    "rbac": _filter("envoy.filters.http.rbac.deny", "envoy.filters.http.rbac.allow"),
    "jwt": _without_token_rules,
    "client-limits": _filter(
        "envoy.filters.http.local_ratelimit", "envoy.filters.http.header_to_metadata"
    ),
    "retry-budget": _filter("envoy.filters.http.lua"),
    "statistics": _filter("envoy.filters.http.grpc_stats"),
    "body-limit": _filter("envoy.filters.http.buffer"),
    "tracing": _field("tracing"),
    "access-log": _field("access_log"),
    "forgotten-headers": _field("early_header_mutation_extensions"),
    "errors": _field("local_reply_config"),
}


def _raise_limits(found: dict[str, Any]) -> None:
    """Keep the limits per client, but so high that the client here never exceeds them."""
    if "tokens_per_fill" in found:
        found |= {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000}


def _objects(found: Any) -> Iterator[dict[str, Any]]:
    if isinstance(found, dict):
        yield found
    for value in found.values() if isinstance(found, dict) else found:
        if isinstance(value, dict | list):
            yield from _objects(value)


def run_without(layer: str, arguments: list[str]) -> None:
    """Run ``amarre`` with *arguments* and proxies that lack *layer*."""
    whole = bootstrap.bootstrap

    def rendered(mesh: Mesh, proxy: Proxy) -> str:
        content = yaml.safe_load(whole(mesh, proxy))
        for one in _objects(content):
            _raise_limits(one)
            LAYERS[layer](one)
        return yaml.safe_dump(content, sort_keys=False)

    bootstrap.bootstrap = rendered
    sys.argv = ["amarre", *arguments]
    cli.main()


async def compare(layers: Sequence[str], rounds: int, port_base: int) -> dict[str, list[float]]:
    """Return the CPU microseconds of each round, for no layer removed and for each of *layers*."""
    found: dict[str, list[float]] = {layer: [] for layer in (NONE, *layers)}
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides = [
            await stack.enter_async_context(
                product(
                    folder,
                    layer,
                    port_base + 500 * at,
                    program=("-m", "benchmarks.layer_cost", "run", layer),
                    AMARRE_RATE_LIMITS="on",
                )
            )
            for at, layer in enumerate(found)
        ]
        for side in sides:
            await _spent(side, 1)
        await measure_idle(sides)
        for _ in range(rounds):
            for side in sides:
                found[side.name].append(await _spent(side, 0.3))
    return found


async def _spent(side: Side, seconds: float) -> float:
    me = get("me", bare.PATH, [side.cookie])
    found = await measure(side, me, seconds=seconds, at_once=16)
    return sum(found.cpu[name] for name in PROXIES)


def _row(layer: str, whole: Sequence[float], less: Sequence[float]) -> list[object]:
    saved = [with_it - without for with_it, without in zip(whole, less, strict=True)]
    quarters = statistics.quantiles(saved, n=4)
    return [
        layer,
        f"{statistics.median(whole):.0f}",
        f"{statistics.median(saved):+.0f}",
        f"{quarters[0]:+.0f} to {quarters[2]:+.0f}",
    ]


def main() -> None:
    """Parse the command line and run."""
    if sys.argv[1:2] == ["run"]:
        run_without(sys.argv[2], sys.argv[3:])
        return
    names = [name for name in LAYERS if name != NONE]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", default=",".join(names), help="Comma-separated names.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--at-a-time", type=int, default=3)
    parser.add_argument("--port-base", type=int, default=7000)
    asked = parser.parse_args()
    layers = asked.layers.split(",")
    if unknown := set(layers) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    rows = []
    for start in range(0, len(layers), asked.at_a_time):
        some = layers[start : start + asked.at_a_time]
        found = asyncio.run(compare(some, asked.rounds, asked.port_base))
        rows += [_row(layer, found[NONE], found[layer]) for layer in some]
    text = (
        "# Layers of the proxies\n\n"
        "Written by `python -m benchmarks.layer_cost`, which describes the method.\n"
        f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC in {asked.rounds} rounds of 0.3 s:"
        " CPU microseconds of both Envoys per `GET /api/v1/me`.\n\n"
        + table(("layer", "with all layers", "this layer, median", "quartiles"), rows)
    )
    (FOLDER / "results/layers.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
