"""The ``OTEL_`` variables that OpenTelemetry itself reads, corrected before it is imported."""

import logging
from collections.abc import MutableMapping
from importlib import metadata

_PLUGINS = {
    "OTEL_PROPAGATORS": "opentelemetry_propagator",
    "OTEL_PYTHON_CONTEXT": "opentelemetry_context",
    "OTEL_PYTHON_TRACER_PROVIDER": "opentelemetry_tracer_provider",
    "OTEL_PYTHON_METER_PROVIDER": "opentelemetry_meter_provider",
    "OTEL_PYTHON_LOGGER_PROVIDER": "opentelemetry_logger_provider",
}
"""Variables that name installed plugins, with the entry point group of each."""


def correct(environment: MutableMapping[str, str]) -> None:
    """Remove blank values, and the names of plugins that are not installed, with a warning.

    OpenTelemetry's API fails at import where such a variable, left in a shell by another program,
    names a plugin that is missing. Call this before it is imported.

    Source:
        OpenTelemetry environment variable specification: an empty value means unset; a value that
        is not recognized generates a warning and is ignored.
    """
    for variable in [name for name in environment if name.startswith("OTEL_")]:
        if not environment[variable].strip():
            del environment[variable]
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
