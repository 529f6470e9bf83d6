"""
Checks of the Ansible roles without Ansible: references, modes, modules.

If ansible-lint is installed, it runs as well, with its strictest profile.
"""

import subprocess
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

_KEYS = {
    "become",
    "changed_when",
    "check_mode",
    "delegate_to",
    "failed_when",
    "loop",
    "name",
    "no_log",
    "notify",
    "register",
    "tags",
    "when",
}
_FROM = {"ansible.builtin.template": "templates", "ansible.builtin.copy": "files"}
_NEED_MODE = {
    "ansible.builtin.copy",
    "ansible.builtin.file",
    "ansible.builtin.get_url",
    "ansible.builtin.template",
}


def faults(root: Path) -> list[str]:
    """Return the problems of the roles in *root*, each with its location."""
    found = []
    for role in sorted((root / "roles").iterdir()):
        handlers = {handler["name"] for handler in _load(role / "handlers" / "main.yml")}
        for task in chain.from_iterable(map(_load, sorted(role.glob("tasks/*.yml")))):
            place = f"role {role.name}, task {task.get('name', '?')!r}"
            found += [f"{place}: {fault}" for fault in _task(task, role, handlers)]
    for play in _load(root / "site.yml"):
        found += [
            f"play {play['name']!r}: there is no role {entry['role']}"
            for entry in play.get("roles", [])
            if not (root / "roles" / entry["role"]).is_dir()
        ]
    for script in sorted(root.glob("roles/*/files/*")):
        found += _script(script)
    return found


def _load(path: Path) -> list[dict[str, Any]]:
    return (yaml.safe_load(path.read_text()) or []) if path.exists() else []


def _task(task: dict[str, Any], role: Path, handlers: set[str]) -> Iterator[str]:
    if not task.get("name"):
        yield "has no name"
    modules = [key for key in task if key not in _KEYS]
    if len(modules) != 1 or not modules[0].startswith("ansible.builtin."):
        yield f"uses {modules}; use exactly one module of ansible.builtin"
        return
    module, arguments = modules[0], task[modules[0]]
    if module in _NEED_MODE and "mode" not in arguments:
        yield "sets no mode"
    if task.get("notify") and task["notify"] not in handlers:
        yield f"notifies {task['notify']!r}, which is not a handler"
    if not isinstance(arguments, dict):
        return
    for source in _sources(arguments.get("src", ""), task.get("loop", [])):
        folder = _FROM.get(module)
        if folder and not source.startswith("{{") and not (role / folder / source).is_file():
            yield f"there is no {folder}/{source}"


def _sources(source: str, loop: list[Any]) -> list[str]:
    if "{{ item }}" not in source:
        return [source] if source else []
    return [source.replace("{{ item }}", str(item)) for item in loop]


def _script(path: Path) -> Iterator[str]:
    done = subprocess.run(  # noqa: S603 - bash reads a file of ours and runs nothing
        ["bash", "-n", str(path)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        yield f"{path.name}: {done.stderr.strip()}"
    if not path.stat().st_mode & 0o100:
        yield f"{path.name}: cannot be run; chmod +x"
