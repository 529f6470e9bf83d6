"""Settings from the environment."""

import os
import subprocess
import sys
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mesh.chassis.config import MeshSettings

PROGRAM = (
    "from mesh.chassis.config import MeshSettings, load_or_exit; "
    "print(load_or_exit(MeshSettings).model_dump_json())"
)


def load(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_fault_is_reported_together() -> None:
    """All invalid variables are reported at once, with their values; exit status 2."""
    refused = load(
        AMARRE_ENV="moon", AMARRE_TRANSPORT="pigeon", AMARRE_LOG_LEVEL="loud", AMARRE_PEERS="{}"
    )

    assert 2 == refused.returncode
    for name, value in (("ENV", "moon"), ("TRANSPORT", "pigeon"), ("LOG_LEVEL", "loud")):
        assert f"AMARRE_{name} holds {value!r}" in refused.stderr
    assert "PEERS" not in refused.stderr
    assert "Traceback" not in refused.stderr


def test_value_that_is_no_json() -> None:
    """A JSON variable with another value is reported with one clear message as well."""
    refused = load(AMARRE_PEERS="auth=127.0.0.1:1")

    assert 2 == refused.returncode
    assert "peers" in refused.stderr.lower()
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("url", ["auth", "http://auth:abc/", "http://auth:65536/", "http://a b/"])
def test_url(url: str) -> None:
    """A URL that cannot be requested is rejected."""
    refused = load(AMARRE_KEY_SET_URL=url)

    assert 2 == refused.returncode
    assert f"AMARRE_KEY_SET_URL holds {url!r}" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("text", "stored"),
    [("PT2S", "PT2S"), ("2s", "PT2S"), ("500ms", "PT0.5S"), ("5m", "PT5M"), ("1.5h", "PT1H30M")],
)
def test_durations(text: str, stored: str) -> None:
    """Durations are a number with a unit, or ISO 8601."""
    loaded = load(AMARRE_DRAIN_TIMEOUT=text)

    assert 0 == loaded.returncode, loaded.stderr
    assert f'"drain_timeout":"{stored}"' in loaded.stdout


@pytest.mark.parametrize("text", ["5", "", "5 s", "five", "00:05", "1e3s", "nan", "5S", "PT", "5w"])
def test_duration_without_a_unit(text: str) -> None:
    """Anything else is rejected; a bare number could be seconds or minutes."""
    refused = load(AMARRE_DRAIN_TIMEOUT=text)

    assert 2 == refused.returncode
    assert f"AMARRE_DRAIN_TIMEOUT holds {text!r}" in refused.stderr
    assert text == "PT" or "such as 500ms, 10s, 5m, 2h or 7d" in refused.stderr
    assert "Traceback" not in refused.stderr


@given(st.text("0123456789.mshdPTYWe+-_ ١", max_size=24) | st.text(max_size=12))
def test_any_duration(text: str) -> None:
    """Any text is a duration that is not negative, or is rejected."""
    try:
        found = MeshSettings(drain_timeout=text).drain_timeout  # type: ignore[arg-type]
    except ValidationError:
        return
    assert found >= timedelta(0)
