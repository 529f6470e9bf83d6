"""The ``OTEL_`` variables that processes inherit, and how the runner describes them."""

import pytest

from mesh.chassis.otel_environment import OtelVariableError, headers, is_exported
from mesh.local.processes.telemetry_variables import description, inherited, with_default

URL = "OTEL_EXPORTER_OTLP_ENDPOINT"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
CONSOLE = "http://127.0.0.1:3021"


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
            ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "deflate"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "1.5"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "511"),
            ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "2049"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "0"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
            ("OTEL_ATTRIBUTE_COUNT_LIMIT", "1.5"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/tmp"),
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
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
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

    @pytest.mark.parametrize("blank", ["", " \t"])
    def test_blank(self, blank: str) -> None:
        """
        A blank value means that a variable is not set.

        Source: OpenTelemetry environment variable specification, Parsing empty value.
        """
        names = ("ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "HEADERS", "COMPRESSION", "CERTIFICATE")
        left = {f"OTEL_EXPORTER_OTLP_{name}": blank for name in names}
        left |= {
            "OTEL_PROPAGATORS": blank,
            "OTEL_SDK_DISABLED": blank,
            "OTEL_TRACES_SAMPLER": blank,
        }
        assert inherited(left) == {}
        assert description(left, CONSOLE) == description({}, CONSOLE)
        assert is_exported("traces", with_default(left, CONSOLE))
        assert headers({"OTEL_EXPORTER_OTLP_TRACES_HEADERS": blank, HEADERS: "a=b"}) == {"a": "b"}


class TestDescription:
    def test_silenced(self) -> None:
        """Variables that disable a signal are reported, to explain an empty console."""
        lines = description({"OTEL_SDK_DISABLED": "true"}, CONSOLE)
        assert "traces: not exported" in lines
        assert any("OTEL_SDK_DISABLED" in line for line in lines)

    def test_unknown_exporter(self) -> None:
        """An unknown exporter is reported as ignored, and the signal is exported."""
        lines = description({"OTEL_LOGS_EXPORTER": "nonsense"}, CONSOLE)
        assert "ignored: OTEL_LOGS_EXPORTER (nonsense)" in lines
        assert f"logs: {CONSOLE}" in lines

    def test_small_share(self) -> None:
        """A sampling ratio below one percent is not shown as none."""
        assert "sampling: 0.1 % of new traces" in description(
            {"OTEL_TRACES_SAMPLER_ARG": "1e-3"}, CONSOLE
        )

    def test_resource_attributes(self) -> None:
        """
        Resource attributes are reported as added to processes or, if each process has its own
        value, as ignored.
        """
        attributes = "team=study, deployment.environment.name=staging,room=1,service.name=x"
        environment = {"OTEL_RESOURCE_ATTRIBUTES": attributes}
        assert inherited(environment) == {"OTEL_RESOURCE_ATTRIBUTES": "team=study,room=1"}
        assert description(environment, CONSOLE)[-2:] == [
            "resource attributes of processes, not of proxies: room, team",
            "ignored: OTEL_RESOURCE_ATTRIBUTES (deployment.environment.name, service.name)",
        ]

    def test_default(self) -> None:
        """Without variables, everything is sent to the console."""
        assert f"logs: {CONSOLE}" in description({}, CONSOLE)

    def test_metrics_have_one_way(self) -> None:
        """The console scrapes metrics, unless a backend for them is named."""
        assert "metrics: scraped by the console" in description({}, CONSOLE)
        assert "metrics: http://a:1" in description({URL: "http://a:1"}, CONSOLE)
        assert not is_exported("logs", {})

    @pytest.mark.parametrize(
        ("exporter", "exported"),
        [("otlp", True), ("console, otlp", True), ("none", False), ("zipkin", False), ("", True),
         (" ", True), ("OTLP", True), ("nonsense", True), ("nonsense,none", False)],
    )  # fmt: skip
    def test_list_of_exporters(self, exporter: str, exported: bool) -> None:
        """
        A list of exporters that contains OTLP enables export, names that the specification does not
        know are ignored, and the mesh has no other exporter.
        """
        assert is_exported("traces", {URL: "a:1", "OTEL_TRACES_EXPORTER": exporter}) is exported
