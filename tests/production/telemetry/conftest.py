"""Meshes with every monitoring program, for the tests in this folder."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event

import httpx
import pytest

from tests.background import in_background
from tests.integration.researcher import whole_way
from tests.observability.servers import get, pager, researcher_at_work, running, wait_for
from tests.production.telemetry.site import MISSING, PERSON, Site
from tests.sidecars.support.running import Running, mesh

VISIT_SECONDS = 5.0
MEMORY = next((folder for folder in [Path("/dev/shm")] if folder.is_dir()), None)
"""Where databases are never slow because of other programs: that is one of the faults."""


@contextmanager
def opened(site: Site, *options: str, **variables: str) -> Iterator[Site]:
    """Start the programs of *site* and its mesh with *options* and *variables*."""
    if MISSING:
        pytest.skip(MISSING)
    with ExitStack() as stack:

        def start(**commands: list[str]) -> None:
            for name, command in commands.items():
                log = site.folder / f"{name}.log"
                site.programs[name] = stack.enter_context(running(*command, log=log))

        site.webhook, site.paged = stack.enter_context(pager(site.refuses))
        start(jaeger=site.jaeger(), mails=site.outbox())
        wait_for("jaeger", partial(get, f"http://{site.at['jaeger-health']}/status"))
        # It warns about an exporter that it cannot reach.
        start(collector=site.collector())
        wait_for("collector", partial(get, f"http://{site.at['health']}"))
        wait_for("mail", lambda: site.subjects() == [])
        exported = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{site.at['grpc']}",
            "OTEL_METRICS_EXPORTER": "none",
        }
        patient = stack.enter_context(mesh(*options, within=MEMORY, **exported, **variables))
        start(**site.watch(patient))
        yield site


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything runs, and one researcher has completed the whole flow."""
    with ExitStack() as stack:
        made = stack.enter_context(opened(Site(tmp_path_factory.mktemp("telemetry"))))
        whole_way(made.mesh.ready, f"{PERSON}@example.org")
        visit(made.mesh)
        stack.enter_context(researcher_at_work(made.mesh))
        stack.enter_context(visitors(made.mesh))
        wait_for("the first measurement", lambda: made.query("amarre_http_server_in_flight"))
        yield made


def visit(patient: Running) -> None:
    """Request unknown paths with personal data in path and query."""
    app = patient.ready["urls"]["app"]
    personal = ("/?secretword=planted", f"/api/v1/{PERSON}@example.org")
    for path in (*personal, "/login", "/api/v1/health/status"):
        httpx.get(f"{app}{path}", trust_env=False, timeout=30)


@contextmanager
def visitors(patient: Running) -> Iterator[None]:
    """A client without a session that retries every few seconds, whatever the response."""

    def come_back(done: Event) -> None:
        while not done.wait(VISIT_SECONDS):
            with suppress(httpx.TransportError):
                visit(patient)

    with in_background(come_back):
        yield
