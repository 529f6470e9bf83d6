"""Build hook: a wheel carries the code generated from its contracts."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GenerateContracts(BuildHookInterface):  # type: ignore[type-arg]
    """Generate ``protos/gen`` before the files of the wheel are collected."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return  # `make generate` has done it, and does it again when a contract changes.
        sys.path.insert(0, str(Path(self.root) / "protos"))
        import generate  # type: ignore[import-not-found] # beside this file, on no package path

        generate.generate(generate.GENERATED)
