"""``python -m tests.import_rules``: import-linter over the rules of pyproject.toml.

There, ``*_svc`` stands for every service, so that a new one keeps the rules without being listed.
"""

import sys
import tempfile
from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]


def expanded(rules: str, services: list[str]) -> str:
    """Return *rules* with ``*_svc`` replaced by the services: in lists, and between bars."""
    listed = ", ".join(f'"{name}"' for name in services)
    return rules.replace('"*_svc"', listed).replace("*_svc", " | ".join(services))


def main() -> int:
    """Check the imports; return the exit status."""
    services = sorted(path.name for path in ROOT.glob("*_svc"))
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(expanded((ROOT / "pyproject.toml").read_text(), services))
        file.flush()
        return lint_imports(config_filename=file.name)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
