"""Variables that OpenTelemetry itself reads."""

import os
import subprocess
import sys

import pytest

from mesh.chassis.telemetry import sdk_environment


class TestPlugins:
    """Names of plugins that are not installed are ignored with a warning, as the OpenTelemetry
    environment variable specification says; the API itself fails at import.
    """

    def test_unknown(self, caplog: pytest.LogCaptureFixture) -> None:
        """Known names are kept, unknown ones removed; a variable without a value is unset."""
        environment = {
            "OTEL_PROPAGATORS": "b3, tracecontext,baggage",
            "OTEL_PYTHON_CONTEXT": "gevent_context",
            "OTEL_PYTHON_TRACER_PROVIDER": "sdk_tracer_provider",
            "OTEL_EXPORTER_OTLP_COMPRESSION": " ",
        }
        sdk_environment.correct(environment)
        assert environment == {
            "OTEL_PROPAGATORS": "tracecontext,baggage",
            "OTEL_PYTHON_TRACER_PROVIDER": "sdk_tracer_provider",
        }
        assert "OTEL_PROPAGATORS: b3 is not installed" in caplog.text

    @pytest.mark.parametrize("module", ["mesh.chassis.telemetry", "opentelemetry.propagate"])
    def test_import(self, module: str) -> None:
        """The mesh starts where OpenTelemetry's own API, the negative control, fails."""
        environment = {**os.environ, "OTEL_PROPAGATORS": "b3", "OTEL_PYTHON_CONTEXT": "none-such"}
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) is (module == "mesh.chassis.telemetry"), done.stderr
