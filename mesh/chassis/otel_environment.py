"""The standard ``OTEL_`` variables, read by one parser for processes and proxies alike.

A blank value means that a variable is not set.

Source:
    OpenTelemetry, environment variable specification; OTLP exporter configuration.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SIGNALS = ("traces", "logs", "metrics")
_SAMPLERS = ("always_on", "always_off", "traceidratio")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_USERINFO = re.compile(r"//[^/@]*@|^[^/@]*@")
_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
"""What gRPC accepts in metadata that is not binary."""
_RESERVED_HEADER = re.compile(
    r"grpc-.*|.*-bin|te|host|content-type|content-length"
    r"|connection|keep-alive|proxy-connection|transfer-encoding|upgrade"
)
"""Headers that gRPC sets itself, that need bytes, or that HTTP/2 forbids."""
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?=[A-Za-z0-9_]))*\.?")
_EXPORTERS = frozenset({"otlp", "none", "console", "logging", "zipkin", "jaeger", "prometheus"})
"""The values of ``OTEL_TRACES_EXPORTER`` etc. that the specification knows."""


class OtelVariableError(ValueError):
    """An ``OTEL_`` variable cannot be used; the message names it and what it accepts."""


@dataclass(frozen=True)
class Endpoint:
    """Where OTLP over gRPC is sent."""

    host: str
    port: int
    tls: bool = False

    @property
    def address(self) -> str:
        """Return HOST:PORT, an IPv6 host in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        """Return the URL that every exporter understands."""
        return f"{'https' if self.tls else 'http'}://{self.address}"

    @property
    def is_loopback(self) -> bool:
        """Whether the collector runs on this machine."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")


def endpoint(environment: Mapping[str, str], signal: str = "traces") -> Endpoint | None:
    """Return where *signal* is sent; None if no variable says so.

    ``HOST:PORT`` without a scheme means plain text, as ``http://HOST:PORT`` does.

    Raises:
        OtelVariableError: The endpoint or the protocol cannot be used.
    """
    name, text = _of_signal(environment, signal, "ENDPOINT")
    if not text:
        return None
    _check_protocol(environment, signal)
    try:
        url = urlsplit(text if _SCHEME.match(text) else f"http://{text}")
        host, port = url.hostname, url.port
    except ValueError:  # A port that is not a number, or a bracket without its partner.
        url, host, port = urlsplit(""), None, None
    if (
        url.scheme not in {"http", "https"}
        or not _is_host(host or "")
        or not port
        or url.path not in {"", "/"}
        or "@" in url.netloc
        or "?" in text
        or "#" in text
    ):
        shown = _USERINFO.sub("//***@", text)
        raise OtelVariableError(
            f"{name} is {shown!r}. Set it to http://HOST:PORT or https://HOST:PORT of an OTLP/gRPC"
            " receiver, usually port 4317, without a path, query or user name."
        )
    return Endpoint(str(host), port, tls=url.scheme == "https")


def is_compressed(environment: Mapping[str, str], signal: str = "traces") -> bool:
    """Whether exporters of *signal* compress with gzip, the only encoding that the SDK has."""
    return _of_signal(environment, signal, "COMPRESSION")[1].lower() == "gzip"


def headers(environment: Mapping[str, str], signal: str = "traces") -> dict[str, str]:
    """Return the headers that exporters of *signal* send, names in lower case.

    Raises:
        OtelVariableError: gRPC could not send one of them; the message does not show its value.

    Source:
        OTLP exporter configuration, Specifying headers via environment variables. gRPC over HTTP2,
        Custom-Metadata. RFC 9113, section 8.2.2.
    """
    variable, text = _of_signal(environment, signal, "HEADERS")
    return dict(_header(variable, entry) for entry in text.split(",") if entry.strip())


def _header(variable: str, entry: str) -> tuple[str, str]:
    """Return the name and the decoded value of *entry*, ``NAME=VALUE``."""
    name, equals, encoded = entry.partition("=")
    name, value = name.strip().lower(), unquote(encoded).strip()
    # The value may be a credential, so that no message shows it.
    if not (equals and _HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)):
        raise OtelVariableError(
            f"{variable} is not a list of NAME=VALUE, separated by commas and percent-encoded. gRPC"
            " sends names of letters, digits, '-', '_' and '.', and values of printable ASCII."
        )
    if _RESERVED_HEADER.fullmatch(name):
        raise OtelVariableError(
            f"{variable} contains {name}, which an OTLP exporter cannot send. Remove this header."
        )
    return name, value


def value_of(environment: Mapping[str, str], name: str) -> str:
    """Return the value of a variable; empty if it is blank or not set."""
    return environment.get(name, "").strip()


def _of_signal(environment: Mapping[str, str], signal: str, option: str) -> tuple[str, str]:
    """Return the variable of an exporter's *option* and its value: of *signal*, or the common."""
    particular = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{option}"
    common = f"OTEL_EXPORTER_OTLP_{option}"
    name = particular if value_of(environment, particular) else common
    return name, value_of(environment, name)


def _is_host(text: str) -> bool:
    """Return whether *text* is an IPv6 address, or a name or IPv4 address in ASCII."""
    try:
        return ipaddress.ip_address(text) is not None
    except ValueError:
        return _HOST.fullmatch(text) is not None and len(text) <= 253


def _check_protocol(environment: Mapping[str, str], signal: str) -> None:
    for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = value_of(environment, name)
        if protocol not in {"", "grpc"}:
            raise OtelVariableError(
                f"{name} is {protocol!r}, but only OTLP over gRPC is supported. Unset it or set it"
                " to grpc, and point the endpoint to the receiver's gRPC port, usually 4317."
            )


def sampling_share(environment: Mapping[str, str], default: float) -> float:
    """Return the share of new traces to sample, 0 to 1, for processes and proxies alike.

    Raises:
        OtelVariableError: The sampler is unknown, or its argument is not a number from 0 to 1.
    """
    name = value_of(environment, "OTEL_TRACES_SAMPLER")
    sampler = name.lower().removeprefix("parentbased_")
    if name and sampler not in _SAMPLERS:
        raise OtelVariableError(
            f"OTEL_TRACES_SAMPLER is {name!r}. Use one of {', '.join(_SAMPLERS)}, each also with"
            " the prefix parentbased_."
        )
    if sampler in {"always_on", "always_off"}:
        return float(sampler == "always_on")
    text = value_of(environment, "OTEL_TRACES_SAMPLER_ARG")
    if not text:
        return 1.0 if sampler else default
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if not 0 <= share <= 1:
        raise OtelVariableError(
            f"OTEL_TRACES_SAMPLER_ARG is {text!r}. Set it to a share from 0 to 1, such as 0.05."
        )
    return share


def is_exported(signal: str, environment: Mapping[str, str]) -> bool:
    """Whether the variables ask for *signal* (``traces``, ``logs``, ``metrics``) to be exported."""
    if value_of(environment, "OTEL_SDK_DISABLED").lower() == "true":
        return False
    known = _exporters(signal, environment) & _EXPORTERS
    if known and "otlp" not in known:
        return False
    return bool(_of_signal(environment, signal, "ENDPOINT")[1])


def unknown_exporters(signal: str, environment: Mapping[str, str]) -> list[str]:
    """Return the names in ``OTEL_TRACES_EXPORTER`` etc. that are ignored.

    Source:
        OpenTelemetry environment variable specification, Enum: a value that is not recognized
        generates a warning and is ignored.
    """
    return sorted(_exporters(signal, environment) - _EXPORTERS)


def _exporters(signal: str, environment: Mapping[str, str]) -> set[str]:
    names = value_of(environment, f"OTEL_{signal.upper()}_EXPORTER").lower().split(",")
    return {name.strip() for name in names} - {""}
