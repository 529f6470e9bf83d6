"""The ``OTEL_`` variables of the runner: what its processes share, and what it says about them.

Source:
    OpenTelemetry, environment variable specification; OTLP exporter configuration.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from mesh.chassis.otel_environment import (
    ENDPOINT,
    SIGNALS,
    OtelVariableError,
    endpoint,
    headers,
    is_exported,
    sampling_share,
    unknown_exporters,
    value_of,
)

_RESOURCE = "OTEL_RESOURCE_ATTRIBUTES"
_OF_EACH_PROCESS = frozenset(
    {
        *("service.name", "service.namespace", "service.instance.id", "service.version"),
        "deployment.environment.name",
    }
)
"""Resource attributes that each process sets itself."""
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
_OBEYED = (
    "OTEL_SDK_DISABLED",
    *(f"OTEL_{signal.upper()}_EXPORTER" for signal in SIGNALS),
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
)


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the ``OTEL_`` variables that many processes may share, endpoints normalized.

    ``OTEL_SERVICE_NAME`` is left out, because it would rename every process, and so are resource
    attributes that each process sets itself. So are variables that no process of the mesh
    reads, such as ``OTEL_PROPAGATORS``: the mesh propagates W3C Trace Context. A protocol without
    an endpoint is that of another program's receiver.

    Raises:
        OtelVariableError: A variable cannot be used.
    """
    found = {
        key: text
        for key, text in environment.items()
        if text.strip() and _is_shared(key, environment)
    }
    for name, text in found.items():
        _check(name, text.strip())
    _check_together(found)
    attributes = _attributes(found.pop(_RESOURCE, ""))
    if kept := [text for key, text in attributes.items() if key not in _OF_EACH_PROCESS]:
        found[_RESOURCE] = ",".join(kept)
    for signal in SIGNALS:
        name = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
        headers(environment, signal)
        if where := endpoint(environment, signal):
            found[name if name in found else ENDPOINT] = str(where)
    sampling_share(environment, 1.0)
    return found


def _attributes(text: str) -> dict[str, str]:
    """Return the entries of a list of KEY=VALUE by their key."""
    return {a.partition("=")[0].strip(): a for a in text.split(",") if a.strip()}


def with_default(environment: Mapping[str, str], default: str) -> dict[str, str]:
    """Return what is `inherited`, with the endpoint *default* unless there is another one.

    Raises:
        OtelVariableError: A variable cannot be used.
    """
    return {ENDPOINT: default, **inherited(environment)}


def _is_shared(name: str, environment: Mapping[str, str]) -> bool:
    if name.endswith("_PROTOCOL"):
        own = f"{name.removesuffix('_PROTOCOL')}_ENDPOINT"
        return bool(value_of(environment, ENDPOINT) or value_of(environment, own))
    known = name in _OBEYED or name == _RESOURCE
    return known or any(each.fullmatch(name) for each in (_EXPORTER, _POSITIVE, _COUNT))


def _check(name: str, text: str) -> None:
    """Refuse what the SDK would stumble over in each process, or pass over in silence."""
    for variables, (accepted, wanted) in _NUMBERS.items():
        if variables.fullmatch(name) and not re.fullmatch(accepted, text):
            raise OtelVariableError(f"{name} is {text!r}. Set it to {wanted}, without a unit.")
    if name.endswith("_COMPRESSION") and text.lower() not in {"none", "gzip"}:
        raise OtelVariableError(f"{name} is {text!r}. Set it to gzip or none.")
    if name.endswith(("_CERTIFICATE", "_CLIENT_KEY")) and not _is_readable(text):
        raise OtelVariableError(f"{name} is {text!r}, which is not a readable file.")
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if name == _RESOURCE and not all(
        key.strip() and equals for key, equals, _ in (entry.partition("=") for entry in entries)
    ):
        raise OtelVariableError(f"{name} is {text!r}. Set it to KEY=VALUE, separated by commas.")


def _is_readable(file: str) -> bool:
    return os.access(file, os.R_OK) and not Path(file).is_dir()


def _check_together(environment: Mapping[str, str]) -> None:
    """Refuse combinations with which the SDK exports nothing."""
    for prefix, default in _QUEUES.items():
        queue, batch = f"{prefix}_MAX_QUEUE_SIZE", f"{prefix}_MAX_EXPORT_BATCH_SIZE"
        most = int(environment.get(queue) or default)
        if int(environment.get(batch) or _BATCH) > most:
            raise OtelVariableError(
                f"{batch} (default {_BATCH}) is greater than {queue} (default {default}). Set both"
                " so that a batch fits into the queue."
            )
    for signal in ("", *(f"{signal.upper()}_" for signal in SIGNALS)):
        key = f"OTEL_EXPORTER_OTLP_{signal}CLIENT_KEY"
        certificate = f"OTEL_EXPORTER_OTLP_{signal}CLIENT_CERTIFICATE"
        if bool(environment.get(key)) != bool(environment.get(certificate)):
            raise OtelVariableError(f"Set both {key} and {certificate}, or neither.")


def pushes_metrics(environment: Mapping[str, str]) -> bool:
    """Whether *environment* names a backend for metrics; otherwise the console scrapes them."""
    return endpoint(environment, "metrics") is not None


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
    lines.append(f"sampling: {100 * sampling_share(environment, share):.3g} % of new traces")
    ignored_part = {
        f"OTEL_{signal.upper()}_EXPORTER": f" ({', '.join(names)})"
        for signal in SIGNALS
        if (names := unknown_exporters(signal, environment))
    }
    obeyed = [name for name in _OBEYED if value_of(environment, name) and name not in ignored_part]
    if obeyed:
        lines.append(f"set in the environment: {', '.join(obeyed)}")
    attributes = _attributes(value_of(environment, _RESOURCE)).keys()
    if added := sorted(attributes - _OF_EACH_PROCESS):
        lines.append(f"resource attributes of processes, not of proxies: {', '.join(added)}")
    if dropped := sorted(attributes & _OF_EACH_PROCESS):
        ignored_part[_RESOURCE] = f" ({', '.join(dropped)})"
    ignored = [
        name + ignored_part.get(name, "")
        for name in sorted(environment)
        if name.startswith("OTEL_") and value_of(environment, name)
        if name in ignored_part or not _is_shared(name, environment)
    ]
    if ignored:
        lines.append(f"ignored: {', '.join(ignored)}")
    return lines
