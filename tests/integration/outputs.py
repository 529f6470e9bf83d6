"""The entire output of a running mesh as text, and a search in it.

A *planted* value is one that must never get out; it is looked for as it stands and in the
encodings of URLs, JSON and HTML, in any case.
"""

import html
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx

from mesh.console.web.server import PAGES

WAIT_SECONDS = 90.0
ENVOY = ("/stats", "/stats/prometheus", "/clusters", "/certs", "/listeners", "/runtime")
API = (
    *("/api/overview", "/api/graph", "/api/traces?limit=500", "/api/logs?limit=1000"),
    *("/api/metrics", "/api/mesh", "/api/intake", "/api/runs", "/api/orders", "/api/series"),
    *("/api/incidents", "/api/processes", "/api/calls", "/api/traces/facets"),
)
"""What the console answers; every method, trace and series of these lists is asked for, too."""


def arrived(
    ready: Mapping[str, Any], *, spans: Mapping[str, str], lines: Mapping[str, str]
) -> None:
    """Wait until the console has a span and a log line of each service, in the trace named there.

    Exporters send in order, so everything that these processes sent before has arrived, too.
    """
    missing = {("spans", *each) for each in spans.items()}
    missing |= {("lines", *each) for each in lines.items()}
    deadline = time.monotonic() + WAIT_SECONDS
    with _asking(ready) as http:
        while missing:
            assert time.monotonic() < deadline, f"has not arrived: {missing}"
            for signal, service, trace in tuple(missing):
                shown = (
                    http.get(f"/api/traces/{trace}").json().get("spans", [])
                    if signal == "spans"
                    else http.get("/api/logs", params={"trace_id": trace}).json()["items"]
                )
                if any(one["service"] == service for one in shown):
                    missing.discard((signal, service, trace))
            time.sleep(0.1)


def outputs(ready: Mapping[str, Any]) -> dict[str, str]:
    """Return the entire output of the processes in a ready file, by location."""
    data = Path(ready["pki"]["ca"]).parents[2]
    found = {log.name: log.read_text(errors="replace") for log in (data / "logs").glob("*.log")}
    found |= dict(_scraped(data))
    found |= {f"console {path}": text for path, text in _console(ready)}
    return found


def leaks(planted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return where each named planted value was found."""
    lowered = {place: text.lower() for place, text in found.items()}
    return [
        f"{what} in {place}"
        for what, value in planted.items()
        for place, text in lowered.items()
        if any(form in text for form in _forms(value))
    ]


def _forms(value: str) -> set[str]:
    """Return the encodings of *value* in logs, URLs, JSON and pages, in lower case."""
    assert len(value) >= 8, "too short to be told from chance"
    forms = {value, quote(value, safe=""), quote_plus(value), html.escape(value)}
    forms |= {json.dumps(value)[1:-1], quote(quote(value, safe=""), safe="")}
    return {form.lower() for form in forms}


def _scraped(data: Path) -> Iterator[tuple[str, str]]:
    """Yield the metrics of every process and the admin output of each proxy."""
    exemplars = {"Accept": "application/openmetrics-text"}
    for target in json.loads((data / "state/scraped.json").read_text()):
        url = target["url"]
        for path in ("",) if url.endswith("/metrics") else ENVOY:
            answer = httpx.get(f"{url}{path}", headers=exemplars, trust_env=False)
            assert answer.is_success, answer.text
            yield f"{target['process']} {path or '/metrics'}", answer.text


def _console(ready: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the console's pages and responses, and its whole database file."""
    with _asking(ready) as http:

        def ask(path: str, **params: str) -> httpx.Response:
            answer = http.get(path, params=params or None)
            assert answer.is_success, f"{path}: {answer.text}"
            return answer

        listed = {path: ask(path) for path in API}
        yield from ((path, answer.text) for path, answer in listed.items())
        yield from ((path, ask(path).text) for path in PAGES if "{" not in path)
        for trace in listed["/api/traces?limit=500"].json()["items"]:
            path = f"/api/traces/{trace['traceId']}"
            yield path, ask(path).text
        for method in filter(None, (m["rpc"] for m in listed["/api/metrics"].json()["items"])):
            yield f"/api/metrics/{method}", ask(f"/api/metrics/{method}").text
        for series in listed["/api/series"].json()["items"]:
            yield f"series {series['name']}", ask("/api/series", name=series["name"]).text
        # Texts stand in the file as they are: UTF-8, neither packed nor encrypted.
        yield "/api/export", ask("/api/export").content.decode(errors="replace")


def _asking(ready: Mapping[str, Any]) -> httpx.Client:
    headers = {"Authorization": f"Bearer {ready['console']['token']}"}
    console = ready["urls"]["console"]
    return httpx.Client(base_url=console, headers=headers, trust_env=False, timeout=60)
