"""The rendered files, validated by the programs that use them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from mesh.render import collector, registry
from tests.production.programs import program
from tests.production.telemetry.site import MISSING, OBSERVABILITY

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.mark.parametrize(
    "arguments",
    [
        ("otelcol", "validate", "--config", "collector/otel-collector.yaml"),
        ("jaeger", "validate", "--config", "jaeger/jaeger.yaml"),
        ("promtool", "check", "rules", "--lint=all", "--lint-fatal", "prometheus/rules/*"),
        ("promtool", "test", "rules", "prometheus/tests/*"),
        ("amtool", "check-config", "alertmanager/alertmanager.yaml"),
    ],
    ids=" ".join,
)
def test_accepted(arguments: tuple[str, ...]) -> None:
    """
    The program accepts the committed file.
    """
    name, *rest = arguments
    files = [str(p) for a in rest if "*" in a for p in sorted(OBSERVABILITY.glob(a))]
    command = [program(name), *(a for a in rest if "*" not in a), *files]
    done = subprocess.run(
        command, cwd=OBSERVABILITY, capture_output=True, text=True, check=False, timeout=300
    )

    assert 0 == done.returncode, done.stdout + done.stderr


def test_prometheus(tmp_path: Path) -> None:
    """
    Prometheus accepts the configurations of a laptop and of Compose.
    """
    for file in (
        OBSERVABILITY / "prometheus/prometheus.yaml",
        registry.committed("compose") / "telemetry/prometheus.yaml",
    ):
        folder = tmp_path / file.parent.name
        folder.mkdir()
        for name in ("rules", "applications"):
            shutil.copytree(OBSERVABILITY / "prometheus" / name, folder / name)
        shutil.copy2(file, folder)
        command = [program("promtool"), "check", "config", str(folder / file.name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert 0 == done.returncode, done.stdout + done.stderr


def test_committed_collector() -> None:
    """
    The collector is tested with the rendered file.
    """
    assert [] == registry.drift(collector.render(), registry.committed("collector"))
