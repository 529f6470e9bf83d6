"""The ``AMARRE_`` variables of the runner."""

import os
from importlib import import_module
from pathlib import Path

import pytest

from mesh import topology
from mesh.local import settings
from mesh.local.data_folder import DataFolder
from mesh.local.processes.plan import Options, Plan


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AMARRE_", "OTEL_")):
            monkeypatch.delenv(name)


def plan(tmp_path: Path) -> Plan:
    return Plan(DataFolder(tmp_path), Options(6000))


def test_own_settings() -> None:
    """The topology names the class that each entry point loads."""
    for process in topology.PROCESSES:
        source = Path(str(import_module(process.module).__file__)).with_name("__main__.py")
        loads = "load_or_exit(" in source.read_text()
        assert loads is bool(process.settings)
        assert not loads or f"load_or_exit({process.settings.rpartition('.')[2]})" in (
            source.read_text()
        )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AMARRE_DRAIN_TIMEOUT", "10"),
        ("AMARRE_RATE_LIMITS", "OFF"),
        ("AMARRE_SECRETS_DIR", "/nonexistent"),
        ("AMARRE_SURVEY_REDCAP_URL", "http://127.0.0.1:abc/api/"),
    ],
)
def test_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A variable that a process would reject is reported once, before anything starts."""
    monkeypatch.setenv(name, value)
    with pytest.raises(settings.InvalidSettingsError) as ei:
        settings.check(plan(tmp_path).units)
    assert 1 == str(ei.value).count(f"{name} holds {value!r}")


def test_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables are reported by what becomes of them: passed on, overridden, or unknown."""
    assert "" == settings.check(plan(tmp_path).units).description
    monkeypatch.setenv("AMARRE_GATEWAY_ORIGINS", "https://a.example")
    monkeypatch.setenv("AMARRE_TRUST_DOMAIN", "Evil.Org")
    monkeypatch.setenv("AMARRE_RATE_LIMIT", "off")
    monkeypatch.setenv("AMARRE_DATA", str(tmp_path))

    found = settings.check(plan(tmp_path).units)

    assert found.description == (
        "set in the environment: AMARRE_GATEWAY_ORIGINS; "
        "set by the local mesh instead: AMARRE_TRUST_DOMAIN; "
        "not read by any process: AMARRE_RATE_LIMIT"
    )


def test_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Variables left in a shell change neither trust domain nor namespace of a local mesh, whose CA
    and proxies have fixed ones.
    """
    left = {
        "AMARRE_TRUST_DOMAIN": "evil.org",
        "AMARRE_NAMESPACE": "",
        "AMARRE_NAMESPACES": '{"auth": "x"}',
    }
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    for unit in plan(tmp_path).units:
        if unit.process.identity and not unit.proxy:
            assert ["amarre.local", "amarre", "{}"] == [unit.environment[name] for name in left]
