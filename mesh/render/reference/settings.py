"""The reference page of settings, from the settings classes and the docstrings of their fields."""

import ast
import inspect
from collections.abc import Iterator
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from typing import Literal, TypeGuard, get_args, get_origin

from pydantic.fields import FieldInfo

from mesh import topology
from mesh.chassis.config import PREFIX, EnvironmentSettings, MeshSettings
from mesh.topology import Stage

HEAD = """\
# Settings

Rendered from the settings classes by `amarre render settings`.
Settings are environment variables.
A process that is started with invalid ones names all of them and exits with status 2.
A variable that is not set is read from the file of its name, in lower case, in the folder \
`AMARRE_SECRETS_DIR`.
Durations have a unit: `500ms`, `10s`, `5m`, `2h` or `7d`.

`amarre up` sets what the local mesh needs, and passes on the other `AMARRE_*` variables of its \
environment: `AMARRE_LOG_LEVEL=DEBUG make up`.
Compose and Kubernetes set those of production.
Telemetry follows the [variables of OpenTelemetry](../../how-to/send-telemetry.md).
"""
_TABLE = """
## {title}

| variable | default | meaning |
| --- | --- | --- |
"""
_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
"""Milliseconds of each unit."""
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most"}


def render() -> dict[str, str]:
    """Return the page."""
    page = HEAD + _table("Every service", MeshSettings)
    for title, kind in _own_settings():
        page += _table(title, kind)
    return {"settings.md": page}


def _own_settings() -> Iterator[tuple[str, type[EnvironmentSettings]]]:
    """Yield the name and the settings of each process that has settings of its own."""
    for process in topology.PROCESSES:
        if process.stage is Stage.OUTSIDE_PRODUCTION:
            continue
        for module in (f"{process.module}.config", f"{process.module}.settings"):
            # By name, because no renderer imports a service.
            for kind in vars(import_module(module)).values() if find_spec(module) else ():
                if _is_settings(kind) and kind.__module__ == module:
                    yield process.name.capitalize(), kind


def _is_settings(value: object) -> TypeGuard[type[EnvironmentSettings]]:
    return inspect.isclass(value) and issubclass(value, EnvironmentSettings)


def _table(title: str, kind: type[EnvironmentSettings]) -> str:
    rows = (
        f"| `{PREFIX}{name.upper()}` | {_default(kind.model_fields[name])} | "
        f"{_meaning(text, kind.model_fields[name])} |\n"
        for name, text in _docstrings(kind)
    )
    return _TABLE.format(title=title) + "".join(rows)


def _docstrings(kind: type[EnvironmentSettings]) -> Iterator[tuple[str, str]]:
    """Yield the name and the docstring of each field that *kind* adds."""
    statements = [
        n for n in ast.walk(ast.parse(inspect.getsource(kind))) if isinstance(n, ast.stmt)
    ]
    for field, text in pairwise(statements):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            yield ast.unparse(field.target), ast.literal_eval(text.value)


def _meaning(text: str, field: FieldInfo) -> str:
    """Return the docstring in Markdown, with the values or bounds that it does not mention."""
    shown = " ".join(text.replace("``", "`").replace("|", r"\|").split())
    values = [v for v in get_args(field.annotation) if get_origin(field.annotation) is Literal]
    missing = [f"`{value}`" for value in values if f"`{value}`" not in shown]
    if missing:
        shown += f" Values: {', '.join(f'`{value}`' for value in values)}."
    bounds = [
        f"{words} {_value(getattr(rule, name))}"
        for name, words in _BOUNDS.items()
        for rule in field.metadata
        if hasattr(rule, name)
    ]
    return f"{shown} Valid: {', '.join(bounds)}." if bounds else shown


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return _value(field.get_default(call_default_factory=True))


def _value(value: object) -> str:
    """Return *value* as a variable holds it."""
    if isinstance(value, timedelta):
        whole = value // timedelta(milliseconds=1)
        unit = next((unit for unit, size in _UNITS.items() if whole and whole % size == 0), "s")
        return f"`{whole // _UNITS[unit]}{unit}`"
    if isinstance(value, tuple | frozenset):
        value = ",".join(map(str, value))
    if isinstance(value, bool):
        value = str(value).lower()
    return f"`{value}`" if value or value == 0 else "–"
