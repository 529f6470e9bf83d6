"""
Checks of Terraform without providers: format, the core module's tests, module interfaces.

Without providers, `terraform validate` runs only for the core; for the adapters, syntax, module
calls and references are checked.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hcl2

CORE = "core"
_USES = re.compile(r"\b(var|module|local|data)\.([\w-]+)(?:\.([\w-]+))?")
_RESOURCE = re.compile(r"(?<![.\w])(openstack_\w+)\.([\w-]+)")
_OWN = {"__is_block__", "__start_line__", "__end_line__", "source", "providers", "version"}


@dataclass
class Module:
    """The declarations and references of one Terraform folder."""

    folder: Path
    variables: dict[str, bool] = field(default_factory=dict)
    """Variables by name: whether a value is required."""
    outputs: set[str] = field(default_factory=set)
    locals: set[str] = field(default_factory=set)
    resources: set[tuple[str, str]] = field(default_factory=set)
    calls: dict[str, dict[str, Any]] = field(default_factory=dict)
    text: str = ""


def faults(root: Path) -> list[str]:
    """Return the problems of the Terraform modules in *root*, each with its location."""
    found = [*_terraform(root)]
    modules = {}
    for folder in sorted({path.parent for path in root.rglob("*.tf")}):
        if ".terraform" in folder.parts:
            continue
        try:
            modules[folder.resolve()] = read(folder)
        except ValueError as error:
            found.append(str(error))
    for module in modules.values():
        found += [
            f"{module.folder.relative_to(root)}: {fault}" for fault in _misfits(module, modules)
        ]
    return found


def read(folder: Path) -> Module:
    """
    Parse the module in *folder*.

    Raises:
        ValueError: A file is not HCL; the message names it.
    """
    module = Module(folder)
    for path in sorted(folder.glob("*.tf")):
        text = path.read_text()
        try:
            content = hcl2.loads(text)
        except Exception as exc:
            raise ValueError(f"{path.name} in {folder.name}: not HCL: {exc}") from exc
        module.text += re.sub(r"(?m)^\s*#.*$", "", text)
        for name, body in _blocks(content, "variable"):
            module.variables[name] = "default" not in body
        module.outputs |= {name for name, _ in _blocks(content, "output")}
        module.calls |= dict(_blocks(content, "module"))
        for block in content.get("locals", []):
            module.locals |= set(block) - _OWN
        for block in content.get("resource", []):
            for kind, named in block.items():
                if kind not in _OWN:
                    module.resources |= {(_plain(kind), _plain(n)) for n in named if n not in _OWN}
    return module


def _blocks(content: Mapping[str, Any], kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for block in content.get(kind, []):
        for name, body in block.items():
            if name not in _OWN:
                yield _plain(name), body


def _plain(text: str) -> str:
    return text.strip('"')


def _misfits(module: Module, modules: Mapping[Path, Module]) -> Iterator[str]:
    for name, call in module.calls.items():
        path = (module.folder / _plain(call["source"])).resolve()
        callee = modules.get(path)
        if callee is None:
            yield f"module {name}: there is no module at {_plain(call['source'])}"
            continue
        given = set(call) - _OWN
        needed = {variable for variable, must in callee.variables.items() if must}
        for variable in sorted(given - set(callee.variables)):
            yield f"module {name}: {path.name} has no variable {variable}"
        for variable in sorted(needed - given):
            yield f"module {name}: {path.name} requires the variable {variable}"
    for kind, name, attribute in _USES.findall(module.text):
        if kind == "var" and name not in module.variables:
            yield f"uses var.{name}, which is not declared"
        elif kind == "local" and name not in module.locals:
            yield f"uses local.{name}, which is not declared"
        elif kind == "module":
            yield from _use_of_module(module, name, attribute, modules)
    for kind, name in _RESOURCE.findall(module.text):
        if (kind, name) not in module.resources:
            yield f"uses {kind}.{name}, which is not declared"


def _use_of_module(
    module: Module, name: str, attribute: str, modules: Mapping[Path, Module]
) -> Iterator[str]:
    call = module.calls.get(name)
    if call is None:
        yield f"uses module.{name}, which is not called"
        return
    callee = modules.get((module.folder / _plain(call["source"])).resolve())
    if callee is not None and attribute not in callee.outputs:
        yield f"uses module.{name}.{attribute}, which {callee.folder.name} does not output"


def _terraform(root: Path) -> Iterator[str]:
    if shutil.which("terraform") is None:
        yield "terraform is missing; install 1.9 or newer to check format and core module"
        return
    yield from _run(root, "fmt", "-check", "-recursive", "-list=true")
    with tempfile.TemporaryDirectory() as name:
        # A copy, because init leaves files behind.
        core = Path(name) / CORE
        shutil.copytree(root / CORE, core, ignore=shutil.ignore_patterns(".terraform*"))
        for arguments in (("init", "-backend=false"), ("validate",), ("test",)):
            output = list(_run(core, *arguments, "-no-color"))
            yield from output
            if output:
                return


def _run(folder: Path, *arguments: str) -> Iterator[str]:
    environment = os.environ | {"TF_CLI_CONFIG_FILE": os.devnull, "CHECKPOINT_DISABLE": "1"}
    done = subprocess.run(  # noqa: S603 - Terraform, by its name
        ["terraform", *arguments],  # noqa: S607
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        yield f"terraform {arguments[0]}: {(done.stdout + done.stderr).strip()}"
