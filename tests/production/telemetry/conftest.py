"""One mesh, with every monitoring program, for all tests in this folder."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from threading import Event

import httpx
import pytest

from tests.background import in_background
from tests.integration.researcher import whole_way
from tests.observability.servers import get, pager, researcher_at_work, running, wait_for
from tests.production.telemetry.site import MISSING, PERSON, Site
from tests.sidecars.support.running import Running, mesh

VISIT_SECONDS = 5.0


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything runs, and one researcher has completed the whole flow."""
    if MISSING:
        pytest.skip(MISSING)
    made = Site(tmp_path_factory.mktemp("telemetry"))
    with ExitStack() as stack:
        made.webhook, made.paged = stack.enter_context(pager())
        for name, command in (("jaeger", made.jaeger()), ("collector", made.collector())):
            stack.enter_context(running(*command, log=made.folder / f"{name}.log"))
            health = f"{made.at['jaeger-health']}/status" if name == "jaeger" else made.at["health"]
            wait_for(name, partial(get, f"http://{health}"))
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{made.at['grpc']}",
            "OTEL_METRICS_EXPORTER": "none",
        }
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in variables.items():
            patch.setenv(name, value)
        patient = stack.enter_context(mesh())
        for name, command in made.watch(patient).items():
            stack.enter_context(running(*command, log=made.folder / f"{name}.log"))
        whole_way(patient.ready, f"{PERSON}@example.org")
        visit(patient)
        stack.enter_context(researcher_at_work(patient))
        stack.enter_context(visitors(patient))
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
