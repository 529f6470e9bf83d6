"""Build hook: a wheel carries the code generated from its contracts."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GenerateContracts(BuildHookInterface):  # type: ignore[type-arg]
    """
    Generate the code of the wheel before its files are collected.

    In a folder of the build's own: the tree may be in use, by tests or a running mesh.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate, and name what was made."""
        if version == "editable":
            return  # `make generate` has done it, and does it again when a contract changes.
        sys.path.insert(0, str(Path(self.root) / "protos"))
        import generate  # type: ignore[import-not-found] # beside this file, on no package path

        self._made = tempfile.TemporaryDirectory()
        made = Path(self._made.name)
        generate.generate(made)
        for package in made.iterdir():
            build_data["force_include"][str(package)] = package.name

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what the wheel now holds."""
        if version != "editable":
            self._made.cleanup()
