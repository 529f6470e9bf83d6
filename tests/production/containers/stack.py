"""The Compose stack on a real engine, started with the commands of its how-to page."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from mesh.render.readers import READERS
from tests.production.namespaces import enter
from tests.production.programs import TELEMETRY, MissingProgramsError, find, path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PAGE = ROOT / "docs/how-to/run-with-compose.md"
STATE = Path(os.environ.get("AMARRE_ENGINE", "/var/tmp/amarre-engine"))
SECTIONS = (
    *("Try it on one machine", "Stop, restart, remove", "Upgrade", "Roll back"),
    *("Back up", "Restore"),
)
"""Sections of the page whose commands the tests run."""
TRY, STOP, UPGRADE, ROLL_BACK, BACK_UP, RESTORE = SECTIONS
COMMAND_SECONDS = 1200
PROGRAMS = ("prometheus", "alertmanager", "otel-collector", "jaeger")
"""Services whose image is one static program; without the program the service is left out."""
FILES = {"otel-collector": "otelcol"}


class CommandError(AssertionError):
    """A command failed; the message has its output."""


class NoEngineError(Exception):
    """No engine works on this machine; the message says why."""


def why_not() -> str:
    """Return why no engine can run here, in one sentence; empty if one can."""
    if os.geteuid() != 0:
        return "A container engine needs root; run make test-containers as root."
    if shutil.which("apt-get") is None:
        return "The engine is installed from Debian's packages, and this machine has no apt-get."
    done = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, check=False)
    if done.returncode:
        return "A container engine needs namespaces, which this machine does not allow."
    if not Path("/dev/net/tun").exists():
        return "The network of the engine needs /dev/net/tun, which this machine does not have."
    return ""


def documented(section: str) -> list[str]:
    """Return the commands in the ``sh`` blocks of *section* of the how-to page."""
    text = PAGE.read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^( *)```sh\n(.*?)^\1```", text, re.S | re.M)
    return [line.strip() for _, block in blocks for line in block.splitlines() if line.strip()]


@dataclass
class Stack:
    """A copy of the tree, the engine, and the containers started from the copy."""

    environment: dict[str, str] = field(default_factory=dict)
    tree: Path = STATE / "tree"

    @property
    def folder(self) -> Path:
        """The folder in which the commands of the page run."""
        return self.tree / "mesh/deploy/compose"

    def start_engine(self) -> None:
        """
        Install the engine if needed, start it, and prepare everything that needs a registry.

        Raises:
            NoEngineError: This machine lacks something, for instance overlay or network.
        """
        try:
            self.engine("install")
            lines = self.engine("start").splitlines()
            self.environment = os.environ | dict(line.split("=", 1) for line in lines)
            self._copy()
            self._build_replacements()
            self._reach_packages()
        except CommandError as error:
            why = str(error).strip().splitlines()[-1]
            raise NoEngineError(f"No container engine works on this machine: {why}") from error

    def engine(self, action: str) -> str:
        """Run *action* of ``engine.sh``."""
        variables = {"STATE": str(STATE), "PYTHON": sys.executable}
        return run(["bash", str(HERE / "engine.sh"), action], environment=os.environ | variables)

    @contextmanager
    def network(self) -> Iterator[None]:
        """Enter the engine's network while the body runs: published ports are on its localhost."""
        with Path("/proc/thread-self/ns/net").open() as own:
            with Path(self.environment["NETWORK"]).open() as engine:
                enter(engine.fileno())
            try:
                yield
            finally:
                enter(own.fileno())

    def leftovers(self) -> list[str]:
        """Return the commands that run in the folder of the engine, and its control groups."""
        found = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{STATE.name}")]
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if str(STATE / "data") in command or str(STATE / "exec") in command:
                    found.append(command)
        return found

    def _copy(self) -> None:
        for folder in (self.tree, STATE / "backups"):
            shutil.rmtree(folder, ignore_errors=True)
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        for name in run(listed, folder=ROOT).splitlines():
            source, target = ROOT / name, self.tree / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)

    def _build_replacements(self) -> None:
        """Build replacements for images that need a registry, with the names in Compose."""
        base = f"docker.io/library/python@{self.environment['PYTHON_DIGEST']}"
        for name, reader in READERS.items():
            files = self._context(name)
            if files is None:
                continue
            folder = STATE / "context" / name
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(HERE / "images" / (name if name not in PROGRAMS else "program"), folder)
            for target, source in files.items():
                shutil.copy2(source, folder / target)
            arguments = ["--build-arg", f"BASE={base}", "--build-arg", f"PROGRAM={name}"]
            self.run(["docker", "build", "-q", *arguments, "-t", reader.image, str(folder)])

    def _reach_packages(self) -> None:
        """Download a package in a container, as builds do."""
        base = f"docker.io/library/python@{self.environment['PYTHON_DIGEST']}"
        pip = ["python", "-m", "pip", "download", "-q", "--no-deps", "-d", "/tmp", "packaging"]
        self.run(["docker", "run", "--rm", base, *pip])

    def _context(self, name: str) -> dict[str, Path] | None:
        """Return the files to add to the image of *name*; None if it cannot be built here."""
        if name in PROGRAMS:
            try:
                find(TELEMETRY)
            except MissingProgramsError:
                return None
            return {"program": path(FILES.get(name, name))}
        if name == "envoy":
            found = find_spec("envoy")
            assert found is not None
            assert found.origin is not None
            return {"envoy": Path(found.origin).parent / "_bin/envoy"}
        return {} if (HERE / "images" / name).is_dir() else None

    def run(self, command: list[str], *, check: bool = True) -> str:
        """Run *command* in the folder of the Compose file; return its output."""
        return run(command, folder=self.folder, environment=self.environment, check=check)

    def line(self, line: str) -> str:
        """
        Run one line of the page in a shell, with the digest and a temporary folder filled in, and
        print how long it took.
        """
        for stated, used in (
            ("sha256:…", self.environment["PYTHON_DIGEST"]),
            ("/var/backups/amarre", str(STATE / "backups")),
        ):
            line = line.replace(stated, used)
        began = time.monotonic()
        output = self.run(["bash", "-ec", line])
        sys.stdout.write(f"{time.monotonic() - began:6.1f} s  {line}\n")
        return output

    def compose(self, *arguments: str) -> str:
        """Run Compose like the page does."""
        return self.run(["docker", "compose", "--env-file", "site.env", *arguments])

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return the engine's state of each container, by the name of its service."""
        ids = self.run(
            ["docker", "ps", "-aq", "--filter", "label=com.docker.compose.project=amarre"]
        )
        if not ids.split():
            return {}
        found = json.loads(self.run(["docker", "inspect", *ids.split()]))
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def unwell(self) -> dict[str, str]:
        """Return the containers that are not running or not healthy, with their state."""
        return {
            name: state for name, state in self._states() if state not in {"healthy", "running"}
        }

    def _states(self) -> Iterator[tuple[str, str]]:
        for name, one in self.containers().items():
            state = one["State"]
            if name == "volume-owners":
                continue
            yield name, state.get("Health", {}).get("Status") or state["Status"]

    def ours(self) -> dict[str, dict[str, Any]]:
        """Return the long-running containers with our images."""
        services, running = self.settings()["services"], self.containers()
        return {
            name: one
            for name, one in running.items()
            if "build" in services[name] and name != "volume-owners"
        }

    def health_checks(self) -> dict[str, list[str]]:
        """Return the commands that check our containers, as ``docker exec`` runs them."""
        found = {}
        for name, one in self.ours().items():
            kind, *command = one["Config"].get("Healthcheck", {}).get("Test", ["NONE"])
            if kind != "NONE":
                found[name] = [*(["sh", "-c"] if kind == "CMD-SHELL" else []), *command]
        return found

    def settings(self) -> dict[str, Any]:
        """Return the Compose file."""
        content: dict[str, Any] = yaml.safe_load((self.folder / "compose.yaml").read_text())
        return content


def run(
    command: list[str],
    *,
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
    check: bool = True,
) -> str:
    """Run *command*; return its standard output, or both outputs if it may fail."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_SECONDS,
    )
    if check and done.returncode:
        raise CommandError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"[-6000:]
        )
    return done.stdout if check else done.stdout + done.stderr


def until(what: str, holds: Callable[[], object], seconds: float = 120) -> None:
    """Wait until *holds* is true."""
    ends = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > ends:
            raise AssertionError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.25)
