"""The ``AMARRE_`` variables of the runner: whether its processes accept them, before they start.

The runner imports no service, so a process of its own (``python -m mesh.local.settings``) reads the
settings of each.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from mesh.chassis import config

if TYPE_CHECKING:
    from mesh.local.processes.plan import Unit

_OF_THE_RUNNER = frozenset({"AMARRE_DATA", config.SECRETS_DIR})


class InvalidSettingsError(Exception):
    """Some variables are invalid; the message names each and what it accepts."""


@dataclass(frozen=True)
class Variables:
    """The ``AMARRE_`` variables in the environment of the runner, by what becomes of them."""

    passed_on: tuple[str, ...] = ()
    overridden: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """What to tell the user; empty if no variable is set."""
        parts = {
            "set in the environment": self.passed_on,
            "set by the local mesh instead": self.overridden,
            "not read by any process": self.unknown,
        }
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)


def check(units: "Iterable[Unit]") -> Variables:
    """Read the settings of the processes of *units* as they will.

    Raises:
        InvalidSettingsError: A process would not start with them.
    """
    found = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(config.PREFIX) and name not in _OF_THE_RUNNER
    }
    if not found and config.SECRETS_DIR not in os.environ:
        return Variables()  # The defaults are valid.
    processes = [unit for unit in units if unit.proxy is None and unit.process.settings]
    known = _known([(unit.process.settings, dict(unit.environment)) for unit in processes])
    overridden = {
        name
        for name, value in found.items()
        if any(unit.environment.get(name, value) != value for unit in processes)
    }
    return Variables(
        passed_on=tuple(sorted(found.keys() & known - overridden)),
        overridden=tuple(sorted(overridden)),
        unknown=tuple(sorted(found.keys() - known - overridden)),
    )


def _known(processes: list[tuple[str, dict[str, str]]]) -> set[str]:
    """Return the names of all variables that *processes* read."""
    done = subprocess.run(  # noqa: S603 - this module
        [sys.executable, "-m", __name__],
        input=json.dumps(processes), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise InvalidSettingsError(f"The settings cannot be read: {last}")
    answer = json.loads(done.stdout)
    if answer["faults"]:
        raise InvalidSettingsError("\n".join(["Invalid settings:", *answer["faults"]]))
    return set(answer["known"])


def _read(processes: list[tuple[str, dict[str, str]]]) -> dict[str, list[str]]:
    known: set[str] = set()
    faults: dict[str, None] = {}
    for path, variables in processes:
        module, _, name = path.rpartition(".")
        kind: type[config.EnvironmentSettings] = getattr(import_module(module), name)
        known |= {f"{config.PREFIX}{field.upper()}" for field in kind.model_fields}
        os.environ.clear()
        os.environ.update(variables)
        try:
            config.load(kind)
        except config.SettingsError as error:
            # Most processes share most settings.
            faults |= dict.fromkeys(str(error).splitlines())
    return {"known": sorted(known), "faults": list(faults)}


if __name__ == "__main__":
    json.dump(_read(json.load(sys.stdin)), sys.stdout)
