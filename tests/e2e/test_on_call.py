"""
An engineer on call: the overview names service and cause of a fault, in one row, within a minute.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.conftest import WIDER, enter_console
from tests.e2e.faults import (
    Fault,
    Mesh,
    failing_canary,
    full_disk,
    hung,
    identity_provider,
    intruder,
    killed,
    locked,
    mounted,
    old_certificate,
    overload,
    redcap,
    retry_storm,
    stopped,
    wrong_clock,
)
from tests.live import free_base, running

pytestmark = [pytest.mark.browser, pytest.mark.envoy]
NOTICED_MS = 60_000
"""A fault is on the overview within a minute."""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A separate mesh, so that other tests are not affected."""
    folder, base = tmp_path_factory.mktemp("on-call"), free_base()
    with (
        mounted(folder) as small_disk,
        identity_provider(folder, base) as appwrite,
        running(folder, base=base) as ready,
    ):
        yield Mesh(ready, folder / "data", appwrite, small_disk)


@pytest.fixture
def page(browser: Browser, mesh: Mesh) -> Iterator[Page]:
    """The console's overview."""
    context = browser.new_context(locale="en-GB", viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    enter_console(mesh.ready, page)
    yield page
    context.close()


@dataclass(frozen=True)
class Case:
    """A fault, with the expected row of the overview."""

    name: str
    inject: Fault
    service: str
    alert: str
    says: str = ""


TOGETHER = {
    "surroundings": (
        Case("a wrong clock", lambda m: wrong_clock(m.ready, "gateway"), "gateway", "ClockWrong"),
        Case("REDCap is slow", lambda m: redcap(m, latency_ms=3000), "redcap", "RedcapSlow"),
        Case("the mail server is unavailable", lambda m: hung(m, "outbox"), "mail", "MailFailing"),
        Case(
            "the identity provider is unavailable",
            lambda m: stopped(m.appwrite.pid if m.appwrite else 0),
            "identity",
            "AppwriteFailing",
        ),
        Case("a database is locked", lambda m: locked(m, "auth"), "auth", "DatabaseSlow", "locked"),
        Case(
            "a certificate near expiry",
            lambda m: old_certificate(m, "health"),
            "health",
            "CertificateExpiring",
        ),
        Case(
            "an unauthorised caller",
            lambda m: intruder(m, "health", "survey", "/amarre.survey.v1.SurveyService/GetLink"),
            "survey",
            "CallersRefused",
            "by spiffe://amarre.local/ns/amarre/sa/health",
        ),
    ),
    "wrong answers": (
        Case(
            "REDCap answers wrongly",
            lambda m: redcap(m, mode="html", error_rate=1.0),
            "redcap",
            "RedcapFailing",
            "an invalid response",
        ),
    ),
    "no answers": (
        Case(
            "REDCap is unavailable",
            lambda m: hung(m, "redcap"),
            "redcap",
            "RedcapFailing",
            "does not respond in time",
        ),
    ),
    "retries": (Case("a retry storm", retry_storm, "survey", "RetryStorm"),),
    "overload": (Case("overload", overload, "gateway", "LimitRefusals", "above its limits"),),
    "a canary": (Case("a failing canary", failing_canary, "survey", "CanaryFailing"),),
    "kills": (
        Case("a service is killed", lambda m: killed(m, "health"), "health", "ServiceDown"),
        Case("a proxy is killed", lambda m: killed(m, "survey-envoy"), "survey", "ProxyDown"),
        Case("a proxy is hung", lambda m: hung(m, "auth-envoy"), "auth", "ProxyDown"),
    ),
    "a hung service": (
        Case("a service is hung", lambda m: hung(m, "survey"), "survey", "ServiceDown"),
    ),
    "the disk": (Case("the disk is full", full_disk, "host", "DiskFilling"),),
}
"""Faults that do not disturb one another are made together."""


@pytest.mark.parametrize("group", TOGETHER)
def test_noticed(mesh: Mesh, page: Page, screenshots: Path, group: str) -> None:
    """
    Within a minute of a fault, one row of the overview names its service and its cause; the row
    links to a page with changes, contract, runbook and actions.
    """
    expect(page.get_by_role("region", name="Alerts")).to_be_visible()
    before = causes(page)
    with ExitStack() as faults:
        for case in TOGETHER[group]:
            faults.enter_context(case.inject(mesh))
        ends = time.monotonic() + NOTICED_MS / 1000
        for case in TOGETHER[group]:
            row = row_of(page, case.service)
            found = row.filter(has_text=case.alert).filter(has_text=case.says)
            left = max(1.0, 1000 * (ends - time.monotonic()))
            expect(found, f"{case.name}: {rows(page)}").to_have_count(1, timeout=left)
        caused = causes(page) - before
        for case in TOGETHER[group]:  # What a fault causes at its service is folded below it.
            assert caused[case.service] <= 1, f"{case.name}: {rows(page)}"
        page.screenshot(path=screenshots / f"on-call-{group.replace(' ', '-')}.png", full_page=True)
        for case in TOGETHER[group]:
            row = row_of(page, case.service).filter(has_text=case.alert)
            row.get_by_role("link", name=case.service, exact=True).click()
            heading = page.get_by_role("heading", name=f"{case.service}: {case.alert}")
            expect(heading).to_be_visible(timeout=NOTICED_MS)
            expect(page.get_by_role("heading", name="Changes before and during")).to_be_visible()
            expect(page.get_by_role("link", name="Runbook")).to_be_visible()
            assert not page.evaluate(WIDER)
            page.go_back()
            expect(heading).not_to_be_visible()


def row_of(page: Page, service: str) -> Any:
    """Return the rows of incidents whose cause is *service*."""
    return page.locator("[data-incident]").filter(
        has=page.get_by_role("link", name=service, exact=True)
    )


def causes(page: Page) -> Counter[str]:
    """Return the number of rows per service."""
    names = page.locator("[data-incident] [data-row]").all_inner_texts()
    return Counter(names)


def rows(page: Page) -> list[str]:
    """Return the text of each incident's row."""
    return page.locator("[data-incident]").all_inner_texts()


def test_first_view(mesh: Mesh, page: Page) -> None:
    """
    The first view of the overview loads at most 150 KB.
    """
    sizes = page.evaluate(
        "performance.getEntries().map(one => one.transferSize ?? 0).reduce((a, b) => a + b, 0)"
    )
    assert 0 < sizes <= 150_000, json.dumps(sizes)
