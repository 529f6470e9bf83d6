"""
A Debian host with systemd as PID 1 in separate namespaces, and the network of its operators.

The host has copies of the machine's sysctls and a control group of its own; it may neither set the
clock nor load modules. Its only way out is a proxy for apt on its loopback address. Docker's engine
and Compose are stand-ins, since containers are tested elsewhere: ``tests/production/containers``.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from tests.production.namespaces import listener

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PLAYBOOKS = ROOT / "mesh/deploy/ansible"
STATE = Path(os.environ.get("AMARRE_IAC", "/var/tmp/amarre-iac"))
ADDRESS, OPERATOR, FOREIGNER = "10.42.0.10", "10.42.0.1", "198.51.100.7"
PROXY_PORT = 3142
VOLUME, VOLUME_BYTES = "/dev/disk/by-id/virtio-data", 2**30
SUITE = "trixie"
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-apt,sudo,openssh-server,iproute2,procps"
COMMAND_SECONDS = 1200
BOOT = HERE / "boot.sh"
_ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL")


class NoHostError(Exception):
    """No host can run on this machine; the message says why."""


def documented_move() -> str:
    """Return the README's commands that move data to a volume, on a host that has no stack yet."""
    text = (PLAYBOOKS / "README.md").read_text()
    (commands,) = re.findall(r"(?s)```sh\nsystemctl stop [a-z. ]+\n(.+?)```", text)
    return str(commands)


def why_not() -> str:
    """Return why no host can run here, in one sentence; empty if one can."""
    if os.geteuid() != 0:
        return "A host with systemd needs root; run make test-iac as root."
    if shutil.which("apt-get") is None:
        return "The host is made of Debian's packages, and this machine has no apt-get."
    if shutil.which("ssh") is None:
        return "Ansible reaches the host over SSH, and this machine has no ssh."
    unshare = ["unshare", "--mount", "--pid", "--net", "--cgroup", "--fork", "true"]
    if subprocess.run(unshare, capture_output=True, check=False).returncode:
        return "A host with systemd needs namespaces, which this machine does not allow."
    if subprocess.run(["losetup", "--find"], capture_output=True, check=False).returncode:
        return "The volume of the host needs a loop device, which this machine does not have."
    return ""


@dataclass(frozen=True)
class Played:
    """The output of a playbook run."""

    status: int
    output: str

    @property
    def changed(self) -> int:
        """The number of changed tasks."""
        return sum(map(int, re.findall(r"changed=(\d+)", self.output)))


class Host:
    """The host; use it as a context."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self._context = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            _install_root()
            with self._context:
                self.init, self.operators = self._boot()
                self._context = self._context.pop_all()
        except AssertionError as error:
            why = str(error).strip().splitlines()[-1]
            raise NoHostError(f"No Debian host with systemd runs on this machine: {why}") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._context.close()

    def run(self, script: str, *, check: bool = True) -> str:
        """Run *script* as root on the host; return its output."""
        return _run(
            ["nsenter", "-t", self.init, "-m", "-p", "-n", "-u", "bash", "-ec", script], check
        )

    def outside(self, *command: str, check: bool = True) -> str:
        """Run *command* in the network of the operators."""
        return _run(["nsenter", "-t", self.operators, "-n", *command], check)

    def ssh(self, source: str) -> str:
        """Log in from the address *source*; return the outcome."""
        options = ["-o", "ConnectTimeout=4", "-o", "BatchMode=yes", *self._trust()]
        command = ["ssh", "-b", source, "-i", str(STATE / "key"), *options]
        return self.outside(*command, f"debian@{ADDRESS}", "echo signed in", check=False)

    def play(self, playbook: str, variables: dict[str, Any]) -> Played:
        """Run *playbook* as in the README, with the inventory that Terraform writes."""
        inventory = {
            "all": {
                "vars": {"ansible_user": "debian", "base_operators": [f"{OPERATOR}/32"]},
                "children": {
                    "compose": {
                        "hosts": {
                            "host": {
                                "ansible_host": ADDRESS,
                                "agents_listen": ADDRESS,
                                "docker_volume": VOLUME,
                            }
                        }
                    }
                },
            }
        }
        (self.work / "inventory.json").write_text(json.dumps(inventory))
        (self.work / "site-vars.yml").write_text(json.dumps(variables))
        done = subprocess.run(
            [
                *("nsenter", "-t", self.operators, "-n"),
                *(str(Path(sys.executable).with_name("ansible-playbook")), playbook),
                *("-i", str(self.work / "inventory.json"), "-e", f"@{self.work}/site-vars.yml"),
                *("--private-key", str(STATE / "key")),
                *("--ssh-common-args", " ".join(self._trust())),
            ],
            cwd=PLAYBOOKS,
            env=os.environ
            | {
                "ANSIBLE_HOME": str(self.work / "ansible"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.work / "cp"),
                "LC_ALL": "C.UTF-8",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        return Played(done.returncode, done.stdout + done.stderr)

    def calls(self) -> list[str]:
        """Return the calls of Compose since the last time."""
        said = self.run(
            "touch /dev/shm/compose.log; cat /dev/shm/compose.log; : >/dev/shm/compose.log"
        )
        return said.splitlines()

    def _trust(self) -> list[str]:
        known = f"UserKnownHostsFile={self.work}/known"
        return ["-o", known, "-o", "StrictHostKeyChecking=accept-new"]

    def _boot(self) -> tuple[str, str]:
        _stand_ins(self.work / "upper")
        operators = self._start([*_ENDS_WITH_US, "unshare", "--net", "sleep", "infinity"])
        group = self._control_group()
        volume = self._volume()
        process = self._start(
            [
                *(*_ENDS_WITH_US, "--bounding-set", "-sys_time,-sys_module"),
                *("unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--fork"),
                *("--kill-child", "bash", str(BOOT)),
            ],
            group,
            VOLUME=volume,
        )
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        _until("the first process of the host", lambda: children.read_text().split())
        init = children.read_text().split()[0]
        self._context.callback(_power_off, int(init), process)
        self._connect(init, str(operators.pid))
        self._serve(listener(Path(f"/proc/{init}/ns/net"), PROXY_PORT))
        (self.work / "go").touch()
        active = ["nsenter", "-t", init, "-m", "-p", "-n", "systemctl", "is-active", "ssh"]
        _until("sshd", lambda: "active\n" == _run(active, check=False), 90)
        return init, str(operators.pid)

    def _start(
        self, command: list[str], group: Path | None = None, **variables: str
    ) -> subprocess.Popen[bytes]:
        console = self._context.enter_context((self.work / "console.log").open("ab"))
        process = subprocess.Popen(
            command,
            env=os.environ | {"STATE": str(STATE), "WORK": str(self.work)} | variables,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: (group / "cgroup.procs").write_text("0") if group else None,
        )
        self._context.callback(process.wait)
        self._context.callback(process.kill)
        return process

    def _control_group(self) -> Path:
        top = Path("/sys/fs/cgroup")
        unified = top / "unified"
        group = (unified if unified.is_dir() else top) / f"amarre-iac-{os.getpid()}"
        group.mkdir()
        self._context.callback(_remove_group, group)
        return group

    def _volume(self) -> str:
        """Return a blank block device, which the kernel detaches once nothing has it open."""
        file = self.work / "volume"
        with file.open("wb") as created:
            created.truncate(VOLUME_BYTES)
        device = _run(["losetup", "--find", "--show", str(file)]).strip()
        opened = os.open(device, os.O_RDONLY)
        self._context.callback(os.close, opened)
        # While it is open, this only marks it for detachment, however the tests end.
        _run(["losetup", "--detach", device])
        return device

    def _connect(self, init: str, operators: str) -> None:
        for line in (
            "ip link set lo up",
            f"ip link add out0 type veth peer name eth0 netns {init}",
            f"ip addr add {OPERATOR}/24 dev out0",
            f"ip addr add {FOREIGNER}/32 dev lo",
            "ip link set out0 up",
        ):
            _run(["nsenter", "-t", operators, "-n", *line.split()])
        for line in (
            "ip link set lo up",
            f"ip addr add {ADDRESS}/24 dev eth0",
            "ip link set eth0 up",
            f"ip route add default via {OPERATOR}",
        ):
            _run(["nsenter", "-t", init, "-n", *line.split()])

    def _serve(self, server: socket.socket) -> None:
        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=_proxy, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        self._context.callback(server.close)


def _proxy(connection: socket.socket) -> None:
    """Forward the requests of apt, one after the other."""
    with connection, contextlib.suppress(OSError), connection.makefile("rb") as asked:
        while line := asked.readline():
            method, url, _ = line.decode().split()
            head = []
            while (more := asked.readline()) not in {b"\r\n", b""}:
                if not more.lower().startswith((b"connection", b"proxy-")):
                    head.append(more)
            split = urlsplit(url)
            target = f"{split.path}?{split.query}" if split.query else split.path
            with socket.create_connection((split.hostname or "", split.port or 80)) as out:
                first = f"{method} {target} HTTP/1.1\r\n".encode()
                out.sendall(first + b"".join(head) + b"Connection: close\r\n\r\n")
                while data := out.recv(65536):
                    connection.sendall(data)
            return


def _install_root() -> None:
    """Create the root of the host once, like a cloud image."""
    root = STATE / "root"
    if (STATE / ".complete").exists():
        return
    for folder in (STATE, STATE / "archives"):
        folder.mkdir(exist_ok=True, parents=True)
    shutil.rmtree(root, ignore_errors=True)
    if shutil.which("debootstrap") is None:
        _run(
            ["sh", "-c", "apt-get update && apt-get install -y --no-install-recommends debootstrap"]
        )
    uris = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
    mirror = next(line for line in uris.splitlines() if "security" not in line)
    variant = ["--variant=minbase", f"--include={PACKAGES}"]
    _run(["debootstrap", *variant, SUITE, str(root), mirror])
    (root / "etc/apt/apt.conf.d/00proxy").write_text(
        f'Acquire::http::Proxy "http://127.0.0.1:{PROXY_PORT}";\n'
    )
    (STATE / "key").unlink(missing_ok=True)
    _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(STATE / "key")])
    _run(["chroot", str(root), "useradd", "-m", "-s", "/bin/bash", "debian"])
    (root / "home/debian/.ssh").mkdir(mode=0o700)
    shutil.copy(STATE / "key.pub", root / "home/debian/.ssh/authorized_keys")
    _run(["chroot", str(root), "chown", "-R", "debian:debian", "/home/debian"])
    _run(["chroot", str(root), "systemctl", "enable", "ssh"])
    (root / "etc/sudoers.d/90-cloud").write_text("debian ALL=(ALL) NOPASSWD: ALL\n")
    (root / "etc/hostname").write_text("host\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost host\n")
    units = root / "etc/systemd/system"
    for masked in ("console-getty.service", "getty.target", "containerd.service"):
        (units / masked).symlink_to("/dev/null")
    (STATE / ".complete").touch()


def _stand_ins(root: Path) -> None:
    """Install the fake engine and Compose in *root*."""
    # Nothing here has to survive a power failure.
    dpkg = root / "etc/dpkg/dpkg.cfg.d"
    plugins = root / "usr/local/lib/docker/cli-plugins"
    drop_ins = root / "etc/systemd/system/docker.service.d"
    for folder in (dpkg, plugins, drop_ins, root / "srv"):
        folder.mkdir(parents=True)
    (dpkg / "fast").write_text("force-unsafe-io\n")
    shutil.copy(HERE / "compose.sh", plugins / "docker-compose")
    (plugins / "docker-compose").chmod(0o755)
    shutil.copy(HERE / "engine.py", root / "srv/engine.py")
    (drop_ins / "stand-in.conf").write_text(
        # The tests start it more often than Debian's unit allows.
        "[Unit]\nStartLimitIntervalSec=0\n"
        "[Service]\nType=simple\nExecStart=\nExecStart=/usr/bin/python3 /srv/engine.py\n"
    )


def _power_off(init: int, process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(init, signal.SIGRTMIN + 4)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(30)


def _remove_group(group: Path) -> None:
    below = sorted((p for p in group.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts))
    for folder in (*below, group):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _run(command: list[str], check: bool = True) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS
    )
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"[-4000:]
        )
    return done.stdout if check else done.stdout + done.stderr


def _until(what: str, holds: Any, seconds: float = 10) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > ends:
            raise AssertionError(f"{what} did not come within {seconds:g} s")
        time.sleep(0.1)
