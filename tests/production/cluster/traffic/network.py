"""Network namespaces on a separate bridge, and the processes in them."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from tests.production.cluster.control_plane import ControlPlane, eventually
from tests.production.namespaces import listener
from tests.production.programs import ROOT

NETWORK = "10.77.0"
ISTIOD = "istiod.istio-system.svc"
_OPEN = """
mount -t tmpfs run /run && mkdir /run/amarre
mount --bind "$0/hosts" /etc/hosts
[ ! -e /etc/resolv.conf ] || mount --bind "$0/resolv.conf" /etc/resolv.conf
ip link set lo up
touch "$0/open" && exec sleep infinity
"""


def why_not() -> str:
    """Return why no pod can run here, in one sentence; empty if one can."""
    if os.geteuid() != 0:
        return "Pods need network namespaces, which only root may make."
    for needed in ("ip", "iptables-restore", "nsenter", "setpriv"):
        if shutil.which(needed) is None:
            return f"Pods need {needed}, which this machine does not have."
    done = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, check=False)
    return "Pods need namespaces, which this machine does not allow." if done.returncode else ""


class Place:
    """A network namespace with an address on the bridge, and a folder for its processes."""

    def __init__(self, folder: Path, hosts: str) -> None:
        """Open the namespace; *hosts* is its ``/etc/hosts``, the only names that it resolves."""
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "hosts").write_text(hosts)
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        self._running: list[tuple[str, subprocess.Popen[bytes], IO[bytes]]] = []
        unshare = ("unshare", "--mount", "--net", "--propagation", "private")
        holder = self._spawn("holder", *unshare, "sh", "-ec", _OPEN, str(folder))
        self.pid = str(holder.pid)
        opened = eventually((folder / "open").exists, lambda: holder.poll() is not None)
        assert opened, self.log("holder")

    @property
    def namespace(self) -> Path:
        """The file of its network namespace."""
        return Path(f"/proc/{self.pid}/ns/net")

    def command(self, *command: str) -> list[str]:
        """Return *command* wrapped to run in this namespace."""
        return ["nsenter", "-t", self.pid, "-n", "-m", *command]

    def run(self, *command: str, text: str | None = None) -> str:
        """Run *command* here; return its output."""
        done = subprocess.run(
            self.command(*command),
            input=text,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert not done.returncode, f"{' '.join(command)}: {done.stdout}{done.stderr}"[-3000:]
        return done.stdout

    def python(self, module: str, *arguments: str, text: str | None = None) -> str:
        """Run a module of this tree here; return its output."""
        return self.run("env", "-C", str(ROOT), sys.executable, "-m", module, *arguments, text=text)

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start *command* here; `log` returns its output."""
        return self._spawn(name, *self.command(*command))

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """Return the last process started as *name*."""
        return next(p for n, p, _ in reversed(self._running) if n == name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to *name* and its children."""
        os.killpg(self.process(name).pid, number)

    def log(self, name: str) -> str:
        """Return the output of *name*."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        """Stop everything that was started here."""
        for _, process, log in reversed(self._running):
            for number in (signal.SIGCONT, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            process.wait(10)
            log.close()
        self._running.clear()

    def _spawn(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._running.append((name, process, log))
        return process


class Network:
    """A bridge in a separate namespace, so that the machine's packet filters do not matter."""

    def __init__(self, folder: Path, cluster: ControlPlane, names: str) -> None:
        """
        Open the network of *cluster*.

        Args:
            folder: What its places write goes below it.
            cluster: Its services are known by their names.
            names: Further lines of ``/etc/hosts``.
        """
        self._folder = folder
        self._cluster = cluster
        self._count = 0
        self._stack = ExitStack()
        services = cluster.get("services", "-A")
        own = [
            f"{s['spec']['clusterIP']} {s['metadata']['name']}.{s['metadata']['namespace']}"
            ".svc.cluster.local"
            for s in services
            if s["spec"].get("clusterIP") not in {None, "None"}
        ]
        self._hosts = "\n".join(["127.0.0.1 localhost", f"127.0.0.1 {ISTIOD}", *own, names])
        self._hub = Place(folder / "hub", self._hosts)
        self._stack.callback(self._hub.close)
        for line in (
            "ip link add br0 type bridge",
            f"ip addr add {NETWORK}.1/24 dev br0",
            "ip link set br0 up",
        ):
            self._hub.run(*line.split())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack.callback(self._end_relays)

    def place(self, name: str, address: str) -> Place:
        """Return a new place with *address*."""
        place = Place(self._folder / name, self._hosts)
        self._stack.callback(place.close)
        self._count += 1
        link = f"p{self._count}"
        for line in (
            f"ip link add {link} type veth peer name eth0 netns {place.pid}",
            f"ip link set {link} master br0 up",
        ):
            self._hub.run(*line.split())
        for line in (
            f"ip addr add {address}/24 dev eth0",
            "ip link set eth0 up",
            f"ip route add default via {NETWORK}.1",
        ):
            place.run(*line.split())
        return place

    def relay(self, place: Place, port: int) -> None:
        """Forward *port* of the namespace's loopback address to that of the machine."""
        server = listener(place.namespace, port)
        self._stack.callback(server.close)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

        asyncio.run_coroutine_threadsafe(
            asyncio.start_server(serve, sock=server), self._loop
        ).result(10)

    def _end_relays(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(_cancel_others())
        self._loop.close()

    def close(self) -> None:
        """Close every namespace."""
        self._stack.close()


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.close()
