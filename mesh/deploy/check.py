"""
``python -m mesh.deploy.check``: all offline checks of the deployment files, in a minute.

Checks are never skipped silently: a missing tool is an error that says what to install.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shutil import which

from mesh.deploy import ansible_check, compose_check, kubernetes_check, terraform_check
from mesh.render import registry

DEPLOY = Path(__file__).resolve().parent
ISTIO = DEPLOY.parent / "istio"
KUBERNETES = DEPLOY / "kubernetes"
TARGETS = ("compose", "docker", "istio", "kubernetes")
YAMLLINT = {
    "extends": "default",
    "rules": {
        "document-start": "disable",
        "line-length": "disable",
        "comments": {"min-spaces-from-content": 1},
        "truthy": {"check-keys": False},
    },
}


def drift() -> list[str]:
    """Return the committed files that differ from a fresh rendering."""
    return [
        f"{target}: {path} differs; run: amarre render {target} --commit"
        for target in TARGETS
        for path in registry.drift(registry.render(target), registry.committed(target))
    ]


def dockerfile() -> list[str]:
    """Return the findings of hadolint."""
    return _findings(_tool("hadolint"), str(DEPLOY / "docker" / "Dockerfile"))


def yaml_files() -> list[str]:
    """Return the findings of yamllint in every YAML file."""
    folders = [str(f) for f in (DEPLOY, ISTIO)]
    return _findings(_tool("yamllint"), "--strict", "-d", json.dumps(YAMLLINT), *folders)


def compose() -> list[str]:
    """Return the problems of the Compose file: schema, mounts, names, exposure."""
    folder = DEPLOY / "compose"
    schema = ("--builtin-schema", "vendor.compose-spec")
    lines = _findings(_tool("check-jsonschema"), *schema, str(folder / "compose.yaml"))
    return lines + compose_check.faults(compose_check.load(folder), folder)


def terraform() -> list[str]:
    """Return the problems of the Terraform modules."""
    return terraform_check.faults(DEPLOY / "terraform")


def ansible() -> list[str]:
    """Return the problems of the Ansible roles."""
    folder = DEPLOY / "ansible"
    found = ansible_check.faults(folder)
    lint = _tool("ansible-lint")
    if which(lint) is None:
        sys.stdout.write("note   ansible-lint is not installed; the roles' own checks ran\n")
        return found
    return found + _findings(lint, "--offline", "--profile", "production", "-q", cwd=folder)


def overlays() -> list[str]:
    """Return the problems of the overlays."""
    return [
        f"overlay {folder.name}: {fault}"
        for folder in sorted((KUBERNETES / "overlays").iterdir())
        if not folder.name.startswith(".")
        for fault in _built(partial(kubernetes_check.build, folder))
    ]


def variants() -> list[str]:
    """Return the problems of the ingress components that no overlay uses."""
    return [
        f"component {name}: {fault}"
        for name in ("ingress-nginx", "ingress-traefik")
        for fault in _built(partial(_variant, name))
    ]


def _variant(name: str) -> list[kubernetes_check.Resource]:
    with kubernetes_check.overlay_with(KUBERNETES, "external-secrets", name) as built:
        return built


def _built(build: Callable[[], list[kubernetes_check.Resource]]) -> list[str]:
    try:
        return kubernetes_check.faults(build())
    except kubernetes_check.BuildError as error:
        return [str(error)]


def istio() -> list[str]:
    """Return the problems of building Istio's resources separately."""
    try:
        kubernetes_check.build(ISTIO / "base")
    except kubernetes_check.BuildError as error:
        return [str(error)]
    return []


def _tool(name: str) -> str:
    """Return the path of a program, from the current environment or the PATH."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else which(name) or name


def _findings(*command: str, cwd: Path | None = None) -> list[str]:
    """Run a checker; return its output if it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - programs named in this file
            command, capture_output=True, text=True, check=False, cwd=cwd
        )
    except FileNotFoundError:
        return [f"{command[0]} is missing; install it to check this"]
    lines = (done.stdout + done.stderr).strip().splitlines()
    return (lines or [f"{command[0]} ended with {done.returncode}"]) if done.returncode else []


CHECKS: tuple[Callable[[], list[str]], ...] = (
    drift,
    dockerfile,
    yaml_files,
    compose,
    terraform,
    ansible,
    istio,
    overlays,
    variants,
)


def main() -> int:
    """Run every check and print its findings; return the exit status."""
    failed = 0
    for check in CHECKS:
        started = time.monotonic()
        found = check()
        seconds = time.monotonic() - started
        sys.stdout.write(
            f"{'failed' if found else 'ok    '} {check.__name__:<14} {seconds:5.1f} s\n"
        )
        for fault in found:
            sys.stdout.write(f"    {fault}\n")
        failed += bool(found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
