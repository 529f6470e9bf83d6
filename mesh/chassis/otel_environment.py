"""The standard ``OTEL_`` variables, read by one parser for processes and proxies alike.

A runner that starts processes and proxies gives each process what `inherited` returns, and each
proxy the same `endpoint` and `sampling_share`.

Source:
    OpenTelemetry, environment variable specification; OTLP exporter configuration.
"""

import ipaddress
import logging
import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from importlib import metadata
from urllib.parse import unquote, urlsplit

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SIGNALS = ("traces", "logs", "metrics")
_SAMPLERS = ("always_on", "always_off", "traceidratio")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_USERINFO = re.compile(r"//[^/@]*@|^[^/@]*@")
_ONE_SERVICE = frozenset({"service.name", "service.instance.id", "service.version"})
_EXPORTER = re.compile(
    r"OTEL_EXPORTER_OTLP_(?:(?:TRACES|LOGS|METRICS)_)?"
    r"(?:ENDPOINT|PROTOCOL|HEADERS|TIMEOUT|COMPRESSION|CERTIFICATE|CLIENT_KEY|CLIENT_CERTIFICATE|INSECURE)"
)
_POSITIVE = re.compile(
    r"OTEL_(?:BSP|BLRP)_(?:SCHEDULE_DELAY|EXPORT_TIMEOUT|MAX_QUEUE_SIZE|MAX_EXPORT_BATCH_SIZE)"
    r"|OTEL_METRIC_EXPORT_(?:INTERVAL|TIMEOUT)"
)
_COUNT = re.compile(r"OTEL_(?:ATTRIBUTE|SPAN|EVENT|LINK|LOGRECORD)_[A-Z_]+_LIMIT")
_SECONDS = re.compile(r"OTEL_EXPORTER_OTLP_(?:[A-Z]+_)?TIMEOUT")
_NUMBERS = {
    _POSITIVE: (r"0*[1-9][0-9]{0,8}", "a whole number above 0"),
    _COUNT: (r"[0-9]{1,9}", "a whole number"),
    _SECONDS: (r"(?=.*[1-9])[0-9]{1,9}(?:\.[0-9]+)?", "a number of seconds above 0"),
}
"""Variables whose value is a number without a unit: what matches it, and what it is."""
_QUEUES = {"OTEL_BSP": 2048, "OTEL_BLRP": 2048}
_BATCH = 512
"""The defaults of queue and batch sizes."""
_HEADER_NAME = re.compile(r"[0-9a-z_.-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
"""What gRPC accepts in metadata that is not binary."""
_RESERVED_HEADER = re.compile(
    r"grpc-.*|.*-bin|te|host|content-type|content-length"
    r"|connection|keep-alive|proxy-connection|transfer-encoding|upgrade"
)
"""Headers that gRPC sets itself, that need bytes, or that HTTP/2 forbids."""
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?=[A-Za-z0-9_]))*\.?")
_PLUGINS = {
    "OTEL_PROPAGATORS": "opentelemetry_propagator",
    "OTEL_PYTHON_CONTEXT": "opentelemetry_context",
    "OTEL_PYTHON_TRACER_PROVIDER": "opentelemetry_tracer_provider",
    "OTEL_PYTHON_METER_PROVIDER": "opentelemetry_meter_provider",
    "OTEL_PYTHON_LOGGER_PROVIDER": "opentelemetry_logger_provider",
}
"""Variables that name installed plugins, with the entry point group of each."""
_OBEYED = (
    "OTEL_SDK_DISABLED",
    *(f"OTEL_{signal.upper()}_EXPORTER" for signal in SIGNALS),
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
)


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
    particular = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    name = particular if environment.get(particular) else ENDPOINT
    text = environment.get(name, "").strip()
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


def headers(environment: Mapping[str, str], signal: str = "traces") -> dict[str, str]:
    """Return the headers that exporters of *signal* send, names in lower case.

    Raises:
        OtelVariableError: gRPC could not send one of them; the message does not show its value.

    Source:
        OTLP exporter configuration, Specifying headers via environment variables. gRPC over HTTP2,
        Custom-Metadata. RFC 9113, section 8.2.2.
    """
    names = f"OTEL_EXPORTER_OTLP_{signal.upper()}_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"
    variable = next((name for name in names if environment.get(name)), "")
    entries = [entry for entry in environment.get(variable, "").split(",") if entry.strip()]
    return dict(_header(variable, entry) for entry in entries)


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


def _is_host(text: str) -> bool:
    """Return whether *text* is an IPv6 address, or a name or IPv4 address in ASCII."""
    try:
        return ipaddress.ip_address(text) is not None
    except ValueError:
        return _HOST.fullmatch(text) is not None and len(text) <= 253


def _check_protocol(environment: Mapping[str, str], signal: str) -> None:
    for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environment.get(name, "")
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
    name = environment.get("OTEL_TRACES_SAMPLER", "").strip()
    sampler = name.removeprefix("parentbased_")
    if sampler and sampler not in _SAMPLERS:
        raise OtelVariableError(
            f"OTEL_TRACES_SAMPLER is {name!r}. Use one of {', '.join(_SAMPLERS)}, each also with"
            " the prefix parentbased_."
        )
    if sampler in {"always_on", "always_off"}:
        return float(sampler == "always_on")
    text = environment.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
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
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = environment.get(f"OTEL_{signal.upper()}_EXPORTER", "").split(",")
    if not {exporter.strip() for exporter in exporters} & {"", "otlp"}:
        return False
    return bool(
        environment.get(ENDPOINT)
        or environment.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    )


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the ``OTEL_`` variables that many processes may share, endpoints normalized.

    Names of one service (``OTEL_SERVICE_NAME``, ``service.name`` among the resource attributes)
    are left out: they would rename every process. So are variables that no process of the mesh
    reads, such as ``OTEL_PROPAGATORS``: the mesh propagates W3C Trace Context. A protocol without
    an endpoint is that of another program's receiver.

    Raises:
        OtelVariableError: A variable cannot be used.
    """
    found = {key: value for key, value in environment.items() if _is_shared(key, environment)}
    for name, text in found.items():
        _check(name, text.strip())
    _check_together(found)
    attributes = found.pop("OTEL_RESOURCE_ATTRIBUTES", "").split(",")
    kept = [a for a in attributes if a and a.partition("=")[0].strip() not in _ONE_SERVICE]
    if kept:
        found["OTEL_RESOURCE_ATTRIBUTES"] = ",".join(kept)
    for signal in SIGNALS:
        name = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
        headers(environment, signal)
        if where := endpoint(environment, signal):
            found[name if environment.get(name) else ENDPOINT] = str(where)
    sampling_share(environment, 1.0)
    return found


def with_default(environment: Mapping[str, str], default: str) -> dict[str, str]:
    """Return what is `inherited`, with the endpoint *default* unless there is another one.

    Raises:
        OtelVariableError: A variable cannot be used.
    """
    return {ENDPOINT: default, **inherited(environment)}


def _is_shared(name: str, environment: Mapping[str, str]) -> bool:
    if name.endswith("_PROTOCOL"):
        own = f"{name.removesuffix('_PROTOCOL')}_ENDPOINT"
        return bool(environment.get(ENDPOINT) or environment.get(own))
    known = name in _OBEYED or name == "OTEL_RESOURCE_ATTRIBUTES"
    return known or any(each.fullmatch(name) for each in (_EXPORTER, _POSITIVE, _COUNT))


def _check(name: str, text: str) -> None:
    """Refuse what the SDK would stumble over in each process, or pass over in silence."""
    for variables, (accepted, wanted) in _NUMBERS.items():
        if variables.fullmatch(name) and text and not re.fullmatch(accepted, text):
            raise OtelVariableError(f"{name} is {text!r}. Set it to {wanted}, without a unit.")
    if name.endswith("_COMPRESSION") and text not in {"", "none", "gzip", "deflate"}:
        raise OtelVariableError(f"{name} is {text!r}. Set it to gzip, deflate or none.")
    if name.endswith(("_CERTIFICATE", "_CLIENT_KEY")) and text and not os.access(text, os.R_OK):
        raise OtelVariableError(f"{name} is {text!r}, which is not a readable file.")
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if name == "OTEL_RESOURCE_ATTRIBUTES" and not all(
        key.strip() and equals for key, equals, _ in (entry.partition("=") for entry in entries)
    ):
        raise OtelVariableError(f"{name} is {text!r}. Set it to KEY=VALUE, separated by commas.")


def _check_together(environment: Mapping[str, str]) -> None:
    """Refuse combinations with which the SDK exports nothing."""
    for prefix, default in _QUEUES.items():
        queue, batch = f"{prefix}_MAX_QUEUE_SIZE", f"{prefix}_MAX_EXPORT_BATCH_SIZE"
        most = int(environment.get(queue, "").strip() or default)
        if int(environment.get(batch, "").strip() or _BATCH) > most:
            raise OtelVariableError(
                f"{batch} (default {_BATCH}) is greater than {queue} (default {default}). Set both"
                " so that a batch fits into the queue."
            )
    for signal in ("", *(f"{signal.upper()}_" for signal in SIGNALS)):
        key = f"OTEL_EXPORTER_OTLP_{signal}CLIENT_KEY"
        certificate = f"OTEL_EXPORTER_OTLP_{signal}CLIENT_CERTIFICATE"
        if bool(environment.get(key)) != bool(environment.get(certificate)):
            raise OtelVariableError(f"Set both {key} and {certificate}, or neither.")


def drop_unknown_plugins(environment: MutableMapping[str, str]) -> None:
    """Remove the names of plugins that are not installed, with a warning.

    OpenTelemetry's API fails at import where such a variable, left in a shell by another program,
    names a plugin that is missing. Call this before it is imported.

    Source:
        OpenTelemetry environment variable specification: a value that is not recognized generates
        a warning and is ignored.
    """
    for variable, group in _PLUGINS.items():
        if variable not in environment:
            continue
        names = [name.strip() for name in environment[variable].split(",") if name.strip()]
        installed = {"none", *metadata.entry_points(group=group).names}
        known = [name for name in names if name in installed]
        if known:
            environment[variable] = ",".join(known)
        else:
            del environment[variable]
        for name in sorted(set(names) - installed):
            logging.getLogger("telemetry").warning("%s: %s is not installed", variable, name)


def pushes_metrics(environment: Mapping[str, str]) -> bool:
    """Whether *environment* names a backend for metrics; otherwise the console scrapes them."""
    return not environment.keys().isdisjoint({ENDPOINT, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"})


def description(environment: Mapping[str, str], default: str, share: float = 1.0) -> list[str]:
    """Return the lines that say where telemetry goes and which variables are obeyed.

    Raises:
        OtelVariableError: A variable cannot be used.
    """
    lines = []
    for signal in SIGNALS:
        defaulted = with_default(environment, default)
        where = endpoint(defaulted, signal) if is_exported(signal, defaulted) else None
        if signal == "metrics" and not pushes_metrics(environment):
            lines.append("metrics: scraped by the console")
        else:
            lines.append(f"{signal}: {where or 'not exported'}")
    lines.append(f"sampling: {sampling_share(environment, share):.0%} of new traces")
    obeyed = [name for name in _OBEYED if environment.get(name)]
    if obeyed:
        lines.append(f"set in the environment: {', '.join(obeyed)}")
    ignored = sorted(
        n for n in environment if n.startswith("OTEL_") and not _is_shared(n, environment)
    )
    if ignored:
        lines.append(f"ignored: {', '.join(ignored)}")
    return lines
