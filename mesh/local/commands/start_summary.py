"""Summary that ``amarre up`` prints once everything is ready."""

import os
from typing import Any

from rich.console import Console
from rich.table import Table

from mesh.local.processes import telemetry_variables

TITLES = {
    "app": "application",
    "app_tls": "application, HTTPS (local CA)",
    "console": "console",
    "outbox": "mail outbox",
    "sandbox": "REDCap sandbox",
    "otlp_grpc": "OTLP gRPC",
    "otlp_http": "OTLP HTTP",
}


def show(ready: dict[str, Any], *, console_link: str, settings: str) -> None:
    """Print URLs, gRPC addresses, start times, settings and the link to the console."""
    table = Table(box=None, pad_edge=False)
    table.add_column("what", style="bold")
    table.add_column("where", no_wrap=True)
    for name, url in ready["urls"].items():
        table.add_row(TITLES[name], url)
    for name, address in ready["grpc"].items():
        table.add_row(f"{name} (gRPC, mTLS)", address)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    console.print(table)
    took = ", ".join(f"{p['name']} {p['ready_ms']} ms" for p in ready["processes"])
    console.print(f"Ready: {took}.", style="dim")
    where = telemetry_variables.description(os.environ, ready["urls"]["otlp_grpc"])
    console.print(f"Telemetry: {'; '.join(where)}.", style="dim")
    if settings:
        console.print(f"Settings: {settings}.", style="dim")
    console.print(f"Open the console once, within 10 minutes: {console_link}")
    console.print("Press Ctrl-C to drain and stop.")
