"""``python -m tests.import_rules``: check imports with the rules of pyproject.toml.

import-linter checks the layers; there, ``*_svc`` stands for every service, so that a new one
keeps the rules without being listed. `check_extras` checks that each module imports only what the
extra that it belongs to installs (``tool.amarre.extras``).
"""

import ast
import re
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[1]
NAME = "amarre-mesh"
GENERATED = {"amarre", "buf"}
"""Packages that the wheel contains and that are made from the contracts."""


def expanded(rules: str, services: list[str]) -> str:
    """Return *rules* with ``*_svc`` replaced by the services: in lists, and between bars."""
    listed = ", ".join(f'"{name}"' for name in services)
    return rules.replace('"*_svc"', listed).replace("*_svc", " | ".join(services))


class Extras:
    """The packages that each extra installs, and its modules.

    ``base`` stands for the installation without extras, ``dev`` for a checkout with the tools.
    """

    def __init__(self, settings: Mapping[str, Any], modules: Mapping[str, list[str]]) -> None:
        tools = [each for each in settings["dependency-groups"]["dev"] if isinstance(each, str)]
        declared = {
            "base": settings["project"]["dependencies"],
            **settings["project"]["optional-dependencies"],
            "dev": [f"{NAME}[local]", *tools],
        }
        self._modules = {name: extra for extra, names in modules.items() for name in names}
        self._includes = {extra: _included(extra, declared) for extra in declared}
        """By extra, the extras that are installed with it, itself included."""
        self._owners: defaultdict[str, set[str]] = defaultdict(set)
        """By importable name, the extras that install it."""
        for extra, requirements in declared.items():
            for requirement in requirements:
                for module in _modules_of(_distribution(requirement)):
                    self._owners[module].add(extra)

    def of_module(self, module: str) -> str | None:
        """Return the extra of *module*, one of ours: the longest matching name decides."""
        return next(
            (self._modules[name] for name in _prefixes(module) if name in self._modules), None
        )

    def faults(self, module: str, source: str) -> Iterator[str]:
        """
        Yield a sentence for each import in *source* that the extra of *module* does not install.
        """
        extra = self.of_module(module)
        if extra is None:
            yield f"{module} belongs to no extra: add it to tool.amarre.extras in pyproject.toml."
            return
        for imported in sorted(_imports(ast.parse(source))):
            root = imported.partition(".")[0]
            if root in sys.stdlib_module_names or root in GENERATED:
                continue
            ours = self.of_module(imported)
            owners = {ours} if ours else self._installed_by(imported)
            if not owners & self._includes[extra]:
                found = " or ".join(sorted(owners)) or "nothing"
                yield f"{module} belongs to {extra} and imports {imported}, which {found} installs."

    def _installed_by(self, imported: str) -> set[str]:
        return next(
            (self._owners[name] for name in _prefixes(imported) if name in self._owners), set()
        )


def check_extras(root: Path = ROOT) -> list[str]:
    """Return a sentence for each import that the extra of the importing module does not install."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    services = sorted(path.name for path in root.glob("*_svc"))
    modules = {
        extra: [each for name in names for each in (services if name == "*_svc" else [name])]
        for extra, names in settings["tool"]["amarre"]["extras"].items()
    }
    extras = Extras(settings, modules)
    faults: list[str] = []
    for package in ("gateway", "mesh", "sandbox", *services):
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            faults += extras.faults(module, path.read_text())
    return faults


def _included(extra: str, declared: Mapping[str, list[str]]) -> set[str]:
    found = {"base", extra}
    for requirement in declared[extra]:
        if _distribution(requirement) == NAME:
            for name in requirement[requirement.index("[") + 1 : requirement.index("]")].split(","):
                found |= _included(name.strip(), declared)
    return found


def _distribution(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]


def _modules_of(name: str) -> Iterator[str]:
    """Yield the importable names of an installed distribution; namespace packages have several."""
    for file in () if name == NAME else distribution(name).files or ():
        if file.suffix in {".py", ".so"} and ".." not in file.parts:
            parts = (*file.parent.parts, file.name.partition(".")[0])
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.AST) -> Iterator[str]:
    """Yield the imports at module level; imports in functions run only on use."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imports(node)


def _prefixes(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def main() -> int:
    """Check the imports; return the exit status."""
    services = sorted(path.name for path in ROOT.glob("*_svc"))
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(expanded((ROOT / "pyproject.toml").read_text(), services))
        file.flush()
        status = lint_imports(config_filename=file.name)
    faults = check_extras()
    sys.stdout.writelines(f"{fault}\n" for fault in faults)
    return status or int(bool(faults))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
