"""The record of processing activities states the retention that is configured."""

import re
from typing import Any

import pytest
import yaml

from mesh.render.registry import ROOT

PAGE = (ROOT / "docs/explanation/data-protection.md").read_text()
OBSERVABILITY = ROOT / "mesh/observability"


@pytest.mark.parametrize(
    ("signal", "file", "keys"),
    [
        ("logs", "loki/loki.yaml", ("limits_config", "retention_period")),
        ("traces", "tempo/tempo.yaml", ("compactor", "compaction", "block_retention")),
        (
            "traces",
            "jaeger/jaeger.yaml",
            ("extensions", "jaeger_storage", "backends", "amarre", "badger", "ttl", "spans"),
        ),
    ],
    ids=["loki", "tempo", "jaeger"],
)
def test_retention(signal: str, file: str, keys: tuple[str, ...]) -> None:
    """
    Each store of logs and traces keeps them for as long as the page says.
    """
    (days,) = re.findall(rf"\b{signal} (\d+) days", PAGE)
    configured: Any = yaml.safe_load((OBSERVABILITY / file).read_text())
    for key in keys:
        configured = configured[key]

    assert f"{24 * int(days)}h" == configured
