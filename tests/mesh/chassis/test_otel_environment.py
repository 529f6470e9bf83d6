"""The standard telemetry variables: one parser for processes and proxies.

Source: OpenTelemetry, environment variable specification and OTLP exporter configuration.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.chassis.otel_environment import (
    OtelVariableError,
    endpoint,
    sampling_share,
)

URL = "OTEL_EXPORTER_OTLP_ENDPOINT"


class TestEndpoint:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            pytest.param("http://localhost:4317", "http://localhost:4317", id="URL"),
            pytest.param("localhost:4317", "http://localhost:4317", id="no scheme"),
            pytest.param("HTTP://Collector:4317/", "http://collector:4317", id="capitals, slash"),
            pytest.param("https://otel.example:443", "https://otel.example:443", id="TLS"),
            pytest.param("http://[::1]:4317", "http://[::1]:4317", id="IPv6"),
        ],
    )
    def test_usable(self, text: str, expected: str) -> None:
        """Every notation of an endpoint means the same to processes and proxies."""
        assert str(endpoint({URL: text})) == expected

    @pytest.mark.parametrize(
        "text",
        ["http://localhost", "localhost", "http://localhost:abc", "http://localhost:70000",
         "ftp://localhost:4317", "http://:4317", "http://localhost:4318/v1/traces", "http://[::1",
         "http://ada:pw@localhost:4317", "http://localhost:4317?a=1", "http://localhost:4317#a",
         "http://a b:4317", "http://a..b:4317", "http://*:4317", "http://%00:4317", "::1:4317",
         "http://localhost:0"],
    )  # fmt: skip
    def test_unusable(self, text: str) -> None:
        """An ambiguous endpoint is rejected with the name of its variable."""
        with pytest.raises(OtelVariableError, match=URL):
            endpoint({URL: text})

    @given(
        st.text("htps:/localhost.[]%@?#0123456789- \t\x00é١", max_size=40) | st.text(max_size=20)
    )
    def test_any_text(self, text: str) -> None:
        """Any text is an endpoint, none at all, or rejected with the name of its variable."""
        try:
            found = endpoint({URL: text})
        except OtelVariableError as error:
            found = None
            message = str(error)
        else:
            message = URL
        assert URL in message
        assert found is None or str(found).startswith(("http://", "https://"))

    def test_password(self) -> None:
        """The message does not repeat a password."""
        with pytest.raises(OtelVariableError) as ei:
            endpoint({URL: "http://ada:hunter2@localhost:4317"})
        assert "hunter2" not in str(ei.value)

    def test_of_one_signal(self) -> None:
        """The variable of a signal takes precedence over the common one."""
        environment = {URL: "http://a:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b:2"}
        assert str(endpoint(environment, "traces")) == "http://b:2"
        assert str(endpoint(environment, "logs")) == "http://a:1"

    def test_protocol(self) -> None:
        """A protocol other than gRPC is rejected as unsupported."""
        with pytest.raises(OtelVariableError, match="OTEL_EXPORTER_OTLP_PROTOCOL"):
            endpoint({URL: "http://a:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"})


class TestSampler:
    @pytest.mark.parametrize(
        ("environment", "share"),
        [
            pytest.param({}, 0.05, id="default"),
            pytest.param({"OTEL_TRACES_SAMPLER": "always_on"}, 1.0, id="all"),
            pytest.param({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, 0.0, id="none"),
            pytest.param({"OTEL_TRACES_SAMPLER": "ALWAYS_OFF"}, 0.0, id="capitals"),
            pytest.param({"OTEL_TRACES_SAMPLER_ARG": "0.25"}, 0.25, id="a share"),
            pytest.param({"OTEL_TRACES_SAMPLER": "traceidratio"}, 1.0, id="ratio, no argument"),
        ],
    )
    def test_share(self, environment: dict[str, str], share: float) -> None:
        """The standard variables set the sampling ratio of new traces."""
        assert sampling_share(environment, 0.05) == share

    @pytest.mark.parametrize(
        "environment",
        [
            pytest.param({"OTEL_TRACES_SAMPLER_ARG": "much"}, id="not a number"),
            pytest.param({"OTEL_TRACES_SAMPLER_ARG": "7"}, id="above 1"),
            pytest.param({"OTEL_TRACES_SAMPLER_ARG": "nan"}, id="NaN"),
            pytest.param({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, id="unknown sampler"),
            pytest.param({"OTEL_TRACES_SAMPLER": "parentbased_"}, id="a prefix only"),
        ],
    )
    def test_unusable(self, environment: dict[str, str]) -> None:
        """An unsupported sampler is rejected with the name of its variable."""
        with pytest.raises(OtelVariableError, match="OTEL_TRACES_SAMPLER"):
            sampling_share(environment, 0.05)
