"""The standard telemetry variables: one parser for processes and proxies.

Source: OpenTelemetry, environment variable specification and OTLP exporter configuration.
"""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.chassis.otel_environment import (
    OtelVariableError,
    description,
    drop_unknown_plugins,
    endpoint,
    headers,
    inherited,
    is_exported,
    sampling_share,
    with_default,
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
        ],
    )
    def test_unusable(self, environment: dict[str, str]) -> None:
        """An unsupported sampler is rejected with the name of its variable."""
        with pytest.raises(OtelVariableError, match="OTEL_TRACES_SAMPLER"):
            sampling_share(environment, 0.05)


class TestInherited:
    def test_names_of_one_service(self) -> None:
        """The name of one service does not rename every process; other variables are inherited."""
        environment = {
            "OTEL_SERVICE_NAME": "mine",
            "OTEL_RESOURCE_ATTRIBUTES": "service.name=mine,team=study, service.instance.id=1",
            "OTEL_TRACES_SAMPLER": "always_on",
            URL: "localhost:4317",
            "HOME": "/home/ada",
        }
        assert inherited(environment) == {
            "OTEL_RESOURCE_ATTRIBUTES": "team=study",
            "OTEL_TRACES_SAMPLER": "always_on",
            URL: "http://localhost:4317",
        }

    def test_left_by_another_program(self) -> None:
        """Variables of auto-instrumentation and of other propagators are not inherited."""
        left = {
            "OTEL_PROPAGATORS": "b3",
            "OTEL_PYTHON_CONTEXT": "gevent_context",
            "OTEL_PYTHON_GRPC_EXCLUDED_SERVICES": "amarre.auth.v1.AuthService",
            "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
            "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/protobuf",
        }
        assert inherited(left) == {}
        assert with_default(left, "http://a:1") == {URL: "http://a:1"}
        ignored = description(left, "http://a:1")[-1]
        assert [f"ignored: {', '.join(sorted(left))}"] == [ignored]
        assert "logs: http://a:1" in description(left, "http://a:1")

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "-1"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5 seconds"),
            ("OTEL_BLRP_MAX_QUEUE_SIZE", "2k"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1m"),
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "1.5"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "511"),
            ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "2049"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "0"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
            ("OTEL_ATTRIBUTE_COUNT_LIMIT", "1.5"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file"),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/dev/null"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,hunter2"),
            ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "=b"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=hunter2%0ab: c"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=hunter2%ff"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a+b=hunter2"),
            ("OTEL_EXPORTER_OTLP_HEADERS", ":path=hunter2"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-bin=hunter2"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b,grpc-timeout=hunter2"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "TE=hunter2"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "host=hunter2"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team"),
            ("OTEL_RESOURCE_ATTRIBUTES", "=study"),
        ],
    )
    def test_unusable_value(self, name: str, text: str) -> None:
        """A value that the SDK cannot use is rejected once, by name."""
        with pytest.raises(OtelVariableError, match=name) as ei:
            inherited({name: text})
        assert "hunter2" not in str(ei.value)  # Headers are credentials.

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10"),
            ("OTEL_BSP_SCHEDULE_DELAY", "500"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5"),
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "512"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/dev/null"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team=study,room="),
        ],
    )
    def test_usable_value(self, name: str, text: str) -> None:
        """Values that the SDK can use are inherited unchanged."""
        assert inherited({name: text}) == {name: text}

    def test_headers(self) -> None:
        """
        Headers of a signal replace the common ones; names are lower case, values decoded and
        without surrounding white space, such as the line end of a file with a token.
        """
        common = {"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20x%0a, b = c"}
        assert headers(common) == {"authorization": "Bearer x", "b": "c"}
        assert headers(common | {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "d=e"}) == {"d": "e"}
        assert headers({}) == {}

    def test_one_endpoint_per_signal(self) -> None:
        """The endpoint of one signal does not affect the common one."""
        environment = {URL: "a:1", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "b:2"}
        assert inherited(environment) == {
            URL: "http://a:1",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://b:2",
        }


class TestDescription:
    def test_silenced(self) -> None:
        """Variables that disable a signal are reported, to explain an empty console."""
        lines = description({"OTEL_SDK_DISABLED": "true"}, "http://127.0.0.1:3021")
        assert "traces: not exported" in lines
        assert any("OTEL_SDK_DISABLED" in line for line in lines)

    def test_default(self) -> None:
        """Without variables, everything is sent to the console."""
        assert "logs: http://127.0.0.1:3021" in description({}, "http://127.0.0.1:3021")

    def test_metrics_have_one_way(self) -> None:
        """The console scrapes metrics, unless a backend for them is named."""
        assert "metrics: scraped by the console" in description({}, "http://127.0.0.1:3021")
        assert "metrics: http://a:1" in description({URL: "http://a:1"}, "http://127.0.0.1:3021")
        assert not is_exported("logs", {})

    @pytest.mark.parametrize(
        ("exporter", "exported"),
        [("otlp", True), ("console, otlp", True), ("none", False), ("zipkin", False), ("", True)],
    )
    def test_list_of_exporters(self, exporter: str, exported: bool) -> None:
        """A list of exporters that contains OTLP enables export; the mesh has no other exporter."""
        assert is_exported("traces", {URL: "a:1", "OTEL_TRACES_EXPORTER": exporter}) is exported


class TestPlugins:
    """Names of plugins that are not installed are ignored with a warning, as the OpenTelemetry
    environment variable specification says; the API itself fails at import.
    """

    def test_unknown(self, caplog: pytest.LogCaptureFixture) -> None:
        """Known names are kept, unknown ones removed, and a variable without names unset."""
        environment = {
            "OTEL_PROPAGATORS": "b3, tracecontext,baggage",
            "OTEL_PYTHON_CONTEXT": "gevent_context",
            "OTEL_PYTHON_TRACER_PROVIDER": "sdk_tracer_provider",
        }
        drop_unknown_plugins(environment)
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
