"""The tutorials work: they are followed literally in a copy of the tree."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.render.registry import ROOT
from tests.live import free_base

SERVICE = ROOT / "docs/tutorials/add-a-service.md"
RPC = ROOT / "docs/tutorials/add-an-rpc.md"
START_SECONDS = 240
AMARRE = ".venv/bin/amarre"
_STEP = re.compile(
    r"^(?:(?P<verb>Create|Add to) `(?P<path>[^`]+)`(?:, (?P<where>[^\n]+))?:\n\n)?"
    r"^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Copy:
    """A copy of the tree in which the steps of a tutorial are taken."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = free_base()
        self.printed: list[str] = []
        """What the commands since the mesh was started have printed."""

    def follow(self, page: Path) -> None:
        """Take every step of *page*; stop the mesh that it starts at the end."""
        with contextlib.ExitStack() as running:
            for step in _STEP.finditer(page.read_text()):
                text = step["text"]
                if step["verb"]:
                    self.write(step["path"], step["where"] or "", text)
                elif step["language"] == "json":
                    assert json.loads(text) == json.loads(self.printed[0])
                elif text.strip() == "make up":
                    running.enter_context(self.up())
                    self.printed = []
                else:
                    for line in text.splitlines():
                        self.printed.append(self.run(line))

    def write(self, path: str, where: str, text: str) -> None:
        """Create a file, or add to one at the given place."""
        file = self.root / path
        if not where:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            return
        present = file.read_text()
        if where == "at the end":
            at = len(present)
        elif line := re.fullmatch(r"before the line `(.+)`", where):
            at = present.index(f"\n{line[1]}\n") + 1
        elif table := re.fullmatch(r"at the end of `(\w+)`", where):
            at = present.index("\n)\n", present.index(f"\n{table[1]} = (\n")) + 1
        else:
            raise AssertionError(f"The tutorial says where in a way that is not known: {where}")
        file.write_text(present[:at] + text + present[at:])

    def replace(self, path: str, old: str, new: str) -> None:
        """Replace every *old* in a file."""
        file = self.root / path
        file.write_text(file.read_text().replace(old, new))

    def run(self, line: str) -> str:
        """Run one command of the tutorial; return its output."""
        command = shlex.split(line.replace(":3000", f":{self.base}"))
        done = subprocess.run(
            command, cwd=self.root, capture_output=True, text=True, timeout=300, check=False
        )
        assert 0 == done.returncode, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def up(self, options: str = "") -> Iterator[None]:
        """Run ``make up`` on free ports until the block ends."""
        ready, log = self.root / "ready.json", self.root / "up.log"
        ready.unlink(missing_ok=True)
        arguments = f"--port-base {self.base} --ready-file {ready} {options}"
        with log.open("w") as output:
            mesh = subprocess.Popen(
                ["make", "up", f"ARGS={arguments}"],
                cwd=self.root,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=os.environ | {"AMARRE_RATE_LIMITS": "off"},
            )
        try:
            ends = time.monotonic() + START_SECONDS
            while not ready.exists():
                assert mesh.poll() is None, log.read_text()
                assert time.monotonic() < ends, log.read_text()
                time.sleep(0.2)
            yield
        finally:
            if mesh.poll() is None:
                os.killpg(mesh.pid, signal.SIGTERM)
            mesh.wait(timeout=60)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy of the files that git tracks or would add."""
    root = tmp_path_factory.mktemp("tutorial") / "amarre"
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, names.decode().split("\0")):
        source, target = ROOT / name, root / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    return Copy(root)


class TestTutorials:
    """Both pages, one after the other, as a reader would follow them."""

    def test_add_a_service(self, copy: Copy) -> None:
        """A contract, a package and a topology entry make a service of the mesh."""
        copy.follow(SERVICE)

        assert "Nothing is planned for monday." in copy.printed[1]

    def test_the_new_service_beside_replicas(self, copy: Copy) -> None:
        """Replicas, canaries and restarts get other ports than the new service."""
        with copy.up("--replicas survey=2 --replicas notes=2"):
            for command in ("restart notes", "restart survey", "canary start notes --manual"):
                copy.run(f"{AMARRE} {command}")

    def test_add_an_rpc(self, copy: Copy) -> None:
        """An addition to the contract and a method make an rpc."""
        copy.follow(RPC)

        assert "tuesday" in copy.printed[1]

    def test_get_an_identity(self, copy: Copy) -> None:
        """A program of another team that a contract names gets an SVID with which it can call."""
        contract = "protos/amarre/notes/v1/notes_service.proto"
        copy.replace("mesh/contract/model.py", "= frozenset()", '= frozenset({"reporting"})')
        copy.replace(contract, 'callers: ["gateway"]', 'callers: ["gateway", "reporting"]')
        for target in ("generate", "render"):
            copy.run(f"make {target}")
        with copy.up():
            days = copy.run(f"{AMARRE} call notes.ListDays --as reporting")

        assert "tuesday" in days
        manifests = copy.root / "mesh/deploy/kubernetes/base"
        assert (manifests / "service-account-reporting.yaml").exists()
        assert "app: reporting" in (manifests / "network-policy-notes.yaml").read_text()


def test_every_step_is_taken() -> None:
    """No block of the tutorials is skipped."""
    for page in (SERVICE, RPC):
        text = page.read_text()
        assert len(re.findall(r"^```\w+$", text, re.MULTILINE)) == len(_STEP.findall(text))
        assert len(re.findall(r"^(?:Create|Add to) `", text, re.MULTILINE)) == sum(
            bool(step["verb"]) for step in _STEP.finditer(text)
        )
