"""
Every alert is fired by a real fault and delivered: pages by mail and webhook, tickets by mail.

Prometheus runs the rendered rules fifteen times faster, and waits for 20 s at most before one of
them fires: slow burn rates would take five minutes, and their own tests cover those.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from mesh.contract import policy
from mesh.render.rules import alerts_of
from mesh.render.rules.alert import Severity
from tests.observability.servers import researcher_at_work, wait_for
from tests.production.telemetry import faults, machine, sign_in_faults
from tests.production.telemetry.conftest import opened
from tests.production.telemetry.faults import Chain, Fault
from tests.production.telemetry.patient import TRAFFIC, Patient
from tests.production.telemetry.site import MISSING, Site

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
LONGEST_SECONDS = 20.0
ALERTS = {alert.name: alert for group in alerts_of(policy.load()).values() for alert in group}
FAULTS = (*(fault for chain in faults.CHAINS for fault in chain), faults.LAST)


def undelivered(site: Site, names: frozenset[str]) -> set[str]:
    """Return those of *names* that have not been delivered as their severity requires."""
    mailed, paged = site.mailed(), site.pages("firing")
    critical = {name for name in names if ALERTS[name].severity is Severity.CRITICAL}
    return (set(names) - mailed) | (critical - paged)


def test_every_alert_has_a_fault() -> None:
    """
    The tests fire exactly the alerts of the rendered rules.
    """
    fired = [faults.AFTERWARDS, faults.ELSEWHERE, *(fault.alerts for fault in FAULTS)]

    assert set(ALERTS) == frozenset().union(*fired)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    """What each fault did not deliver, after all of them are over."""
    site = Site(tmp_path_factory.mktemp("faults"), LONGEST_SECONDS)
    found: dict[str, set[str]] = {}
    with opened(site, **sign_in_faults.SETTINGS), researcher_at_work(site.mesh, TRAFFIC):
        patient = Patient(site)
        wait_for("traffic", lambda: site.query("service_method:amarre_calls:rate5m > 0"))

        def suffer(chain: Chain) -> None:
            for fault in chain:
                if fault is faults.MACHINE and machine.why_not():
                    continue
                try:
                    with fault.inject(patient):
                        found[fault.name] = missing(site, fault.alerts)
                except Exception as error:
                    # The other faults go on.
                    found[fault.name] = {repr(error)}

        with ThreadPoolExecutor(len(faults.CHAINS)) as pool:
            list(pool.map(suffer, faults.CHAINS))
        found["afterwards"] = missing(site, faults.AFTERWARDS)
        suffer((faults.LAST,))
        yield found


def missing(site: Site, names: frozenset[str]) -> set[str]:
    """Wait until alerts have been delivered; return those that have not, with their state."""
    try:
        wait_for("delivery", lambda: not undelivered(site, names))
    except AssertionError:
        return {f"{name}: {site.state(name)}" for name in undelivered(site, names)}
    return set()


@pytest.mark.parametrize("fault", [pytest.param(f, id=f.name) for f in FAULTS])
def test_delivered(fault: Fault, results: dict[str, set[str]]) -> None:
    """
    The alerts of a fault are delivered while it lasts.
    """
    if fault is faults.MACHINE and machine.why_not():
        pytest.skip(machine.why_not())

    assert set() == results[fault.name]


def test_afterwards(results: dict[str, set[str]]) -> None:
    """
    A slow burn of the error budget is delivered once what explained it is over.
    """
    assert set() == results["afterwards"]
