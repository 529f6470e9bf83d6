"""Cost of each policy layer of the proxies: CPU time of a request's two Envoys with and without it.

    python -m benchmarks.layer_cost [--layers rbac,jwt] [--rounds 12]

For each layer the whole product runs twice side by side, once without the layer, and both are
measured alternately on ``GET /api/v1/me``. Takes about half a minute per layer. Layers are removed
here only, by changing the rendered configuration; the product has no such option.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.gateway_cost import BARE_PATH, Side, measure, product
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


def _field(*names: str) -> Remove:
    def remove(found: dict[str, Any]) -> None:
        for name in names:
            if not isinstance(found.get(name), str):
                found.pop(name, None)

    return remove


LAYERS: dict[str, Remove] = {
    "rbac": _filter("envoy.filters.http.rbac.deny", "envoy.filters.http.rbac.allow"),
    "jwt": _filter("envoy.filters.http.jwt_authn"),
    "retry-budget": _filter("envoy.filters.http.lua"),
    "statistics": _filter("envoy.filters.http.grpc_stats"),
    "body-limit": _filter("envoy.filters.http.buffer"),
    "tracing": _field("tracing"),
    "access-log": _field("access_log"),
    "forgotten-headers": _field("early_header_mutation_extensions"),
    "errors": _field("local_reply_config"),
}


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
            LAYERS[layer](one)
        return str(yaml.safe_dump(content, sort_keys=False))

    bootstrap.bootstrap = rendered
    sys.argv = ["amarre", *arguments]
    cli.main()


async def compare(layer: str, rounds: int, port_base: int) -> list[float]:
    """Return the cost of the layer in each round, in microseconds per request."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        without = ("-m", "benchmarks.layer_cost", "run", layer)
        async with (
            product(folder, "whole", port_base) as whole,
            product(folder, "without", port_base + 500, program=without) as less,
        ):
            for side in (whole, less):
                await measure(side, BARE_PATH, seconds=1, at_once=16)
            return [await _spent(whole) - await _spent(less) for _ in range(rounds)]


async def _spent(side: Side) -> float:
    found = await measure(side, BARE_PATH, seconds=0.5, at_once=16)
    return sum(found.cpu[name] for name in PROXIES)


def main() -> None:
    """Parse the command line and run."""
    if sys.argv[1:2] == ["run"]:
        run_without(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", default=",".join(LAYERS), help="Comma-separated names.")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--port-base", type=int, default=7000)
    asked = parser.parse_args()
    layers = asked.layers.split(",")
    if unknown := set(layers) - set(LAYERS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(LAYERS)}")
    for layer in layers:
        found = asyncio.run(compare(layer, asked.rounds, asked.port_base))
        quarters = statistics.quantiles(found, n=4)
        print(
            f"{layer:>18}: {statistics.median(found):+5.0f} µs a request,"
            f" quartiles {quarters[0]:+.0f} to {quarters[2]:+.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
