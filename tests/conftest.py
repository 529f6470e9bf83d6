"""Shared fixtures: one test authority and its SVID folders per session."""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import structlog
from httpx._transports import default as httpx_transports
from xdist.scheduler import LoadFileScheduling, Scheduling

from mesh.local.pki.certificate_authority import CertificateAuthority, Issued, install, issue_all
from tests.live import live

__all__ = ["live"]

# httpx reads the public roots for every client, which takes OpenSSL 50 ms or more. Tests make
# thousands of clients, and one TLS context serves them all.
_httpx: Any = httpx_transports
_httpx.create_ssl_context = functools.cache(_httpx.create_ssl_context)

WHOLE_MESHES = (
    *("tests/integration/", "tests/e2e/", "tests/docs/", "tests/sidecars/", "tests/observability/"),
    *("tests/chaos/", "tests/load/", "tests/mesh/deploy/"),
)
"""Folders whose files take minutes."""
SHARED = ("tests/integration/", "tests/e2e/")
"""Folders whose files share a mesh."""
NO_SKIPS = "AMARRE_TESTS_NO_SKIPS"
"""Set where everything must run; a skipped test then fails the session."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the slow files, so that no worker waits at the end for the last one."""
    order = {folder: at for at, folder in enumerate(WHOLE_MESHES)}

    def place(item: pytest.Item) -> int:
        return next((at for f, at in order.items() if item.nodeid.startswith(f)), len(order))

    items.sort(key=place)


class ByFile(LoadFileScheduling):  # type: ignore[misc] # It has no types.
    """
    Workers of pytest-xdist take whole files, and one of them all files that share a mesh.
    """

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return SHARED[0] if file.startswith(SHARED) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    """Start the mesh of these tests once per transport, not once per file."""
    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a session with skipped tests if skipping is not permitted."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get(NO_SKIPS) and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def authority() -> CertificateAuthority:
    """The authority that the mesh under test trusts."""
    return CertificateAuthority.create()


@pytest.fixture(scope="session")
def svids(authority: CertificateAuthority, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one SVID folder per workload: gateway, auth, survey, health, operator."""
    folder = tmp_path_factory.mktemp("svids")
    issue_all(authority, folder)
    return folder


@pytest.fixture
def installed(tmp_path: Path) -> Callable[[Issued], Path]:
    """Puts a hand-made certificate into its own SVID folder."""

    def put(issued: Issued) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        install(issued, folder)
        return folder

    return put


@pytest.fixture
def renew_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[ModuleType], None]]:
    """Gives a module a logger that earlier tests have not bound to their output."""
    before = structlog.get_config()

    def renew(module: ModuleType) -> None:
        monkeypatch.setattr(module, "log", structlog.get_logger(module.__name__))

    yield renew
    structlog.configure(**before)
