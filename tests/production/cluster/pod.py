"""
Pods in network namespaces of their own: Istio's redirection, pilot-agent, a real Envoy, and the
process that production runs beside them.

The agent runs as user 1337, whom the redirection leaves out, and may read and write every file, so
that no folder has to be given to it. What it reaches of istiod, and nothing else of the machine, is
relayed to its loopback address.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from mesh.local.processes import envoy
from tests.production.cluster.control_plane import ControlPlane, Resource, eventually
from tests.production.cluster.programs import ROOT
from tests.production.namespaces import inside, listener

NETWORK = "10.77.0"
PROXY_USER = "1337"
ISTIOD = "istiod.istio-system.svc"
_OPEN = """
mount -t tmpfs run /run && mkdir /run/amarre
mount --bind "$0/hosts" /etc/hosts
[ ! -e /etc/resolv.conf ] || mount --bind "$0/resolv.conf" /etc/resolv.conf
ip link set lo up
touch "$0/open" && exec sleep infinity
"""


def why_not() -> str:
    """Return why no pod can run here, in one sentence; empty when one can."""
    if os.geteuid() != 0:
        return "Pods need network namespaces, which only root may make."
    for needed in ("ip", "iptables-restore", "nsenter", "setpriv"):
        if shutil.which(needed) is None:
            return f"Pods need {needed}, which this machine does not have."
    done = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, check=False)
    return "Pods need namespaces, which this machine does not allow." if done.returncode else ""


class Place:
    """A network namespace with an address on the bridge, and a folder for what runs there."""

    def __init__(self, folder: Path, hosts: str) -> None:
        """Open the namespace; *hosts* is its ``/etc/hosts``, the only names that it knows."""
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
        """Return *command* as it runs in this place."""
        return ["nsenter", "-t", self.pid, "-n", "-m", *command]

    def run(self, *command: str, text: str | None = None) -> str:
        """Run *command* here; return what it printed."""
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
        """Run a module of this tree here; return what it printed."""
        return self.run("env", "-C", str(ROOT), sys.executable, "-m", module, *arguments, text=text)

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start *command* here; `log` returns what it writes."""
        return self._spawn(name, *self.command(*command))

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """Return the process that was last started as *name*."""
        return next(p for n, p, _ in reversed(self._running) if n == name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to *name* and what it started."""
        os.killpg(self.process(name).pid, number)

    def log(self, name: str) -> str:
        """Return what *name* has written."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        """End everything that was started here."""
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
    """A bridge in a namespace of its own, so that packet filters of the machine do not matter."""

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
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._stack.callback(self._loop.call_soon_threadsafe, self._loop.stop)

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
        """Pass on what comes to *port* of the place's loopback address to that of the machine."""
        server = listener(place.namespace, port)
        self._stack.callback(server.close)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))

        asyncio.run_coroutine_threadsafe(
            asyncio.start_server(serve, sock=server), self._loop
        ).result(10)

    def close(self) -> None:
        """End every place."""
        self._stack.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.close()


class Pod:
    """One pod of the API server, with its proxy and, but for the edge, its process."""

    def __init__(self, network: Network, cluster: ControlPlane, pod: Resource) -> None:
        """Open its place; nothing runs yet."""
        metadata = pod["metadata"]
        self.name, self.namespace = metadata["name"], metadata["namespace"]
        self.app, self.address = metadata["labels"]["app"], pod["status"]["podIP"]
        self._cluster, self._resource = cluster, pod
        self.place = network.place(self.name, self.address)
        self.port = cluster.ports["xds-tls"]
        network.relay(self.place, self.port)

    def start_proxy(self, **variables: str) -> None:
        """Start pilot-agent with *variables*, as its container does, and wait until it is ready."""
        folder = self.place.folder
        for name in (
            *("var/run/secrets/tokens", "var/run/secrets/istio", "var/lib/istio/data"),
            *("var/run/secrets/workload-spiffe-uds", "var/run/secrets/credential-uds"),
            *("var/run/secrets/workload-spiffe-credentials", "etc/istio/proxy", "etc/istio/pod"),
        ):
            (folder / name).mkdir(parents=True)
        account = self._resource["spec"]["serviceAccountName"]
        token = self._cluster.kubectl(
            *("-n", self.namespace, "create", "token", account, "--audience", "istio-ca"),
            *("--bound-object-kind", "Pod", "--bound-object-name", self.name),
        )
        (folder / "var/run/secrets/tokens/istio-token").write_text(token)
        authority = self._cluster.folder / "pki/ca.crt"
        shutil.copy(authority, folder / "var/run/secrets/istio/root-cert.pem")
        labels = "".join(f'{k}="{v}"\n' for k, v in self._resource["metadata"]["labels"].items())
        (folder / "etc/istio/pod/labels").write_text(labels)
        (folder / "etc/istio/pod/annotations").touch()
        agent = self._cluster.programs.path("pilot-agent")
        role = "router" if self.app == "edge" else "sidecar"
        if role == "sidecar":
            self.place.run(
                *(agent, "istio-iptables", "-p", "15001", "-z", "15006", "-u", PROXY_USER),
                *("-g", PROXY_USER, "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*"),
                *("-d", "15090,15021,15020"),
            )
        environment = self._variables(account) | variables
        self.place.start(
            "proxy",
            *("setpriv", "--reuid", PROXY_USER, "--regid", PROXY_USER, "--clear-groups"),
            *("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"),
            *("env", "-i", "-C", str(folder), *(f"{k}={v}" for k, v in environment.items())),
            *(agent, "proxy", role, "--domain", f"{self.namespace}.svc.cluster.local"),
            *("--proxyLogLevel=warning", "--log_output_level=default:info"),
        )

    def _variables(self, account: str) -> dict[str, str]:
        spec, folder = self._resource["spec"], self.place.folder
        given = [
            json.loads(variable["value"])
            for container in [*spec.get("initContainers", []), *spec["containers"]]
            for variable in container.get("env") or []
            if variable["name"] == "PROXY_CONFIG"
        ]
        template = self._cluster.programs.charts / "envoy_bootstrap.json"
        here = {
            "binaryPath": str(envoy.binary()),
            "configPath": str(folder / "etc/istio/proxy"),
            "discoveryAddress": f"{ISTIOD}:{self.port}",
            "proxyBootstrapTemplatePath": str(template),
        }
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(folder),
            "POD_NAME": self.name,
            "POD_NAMESPACE": self.namespace,
            "INSTANCE_IP": self.address,
            "SERVICE_ACCOUNT": account,
            "HOST_IP": f"{NETWORK}.1",
            "TRUST_DOMAIN": "amarre.local",
            "PILOT_CERT_PROVIDER": "istiod",
            "CA_ADDR": f"{ISTIOD}:{self.port}",
            "ISTIO_META_CLUSTER_ID": "Kubernetes",
            "ISTIO_META_INTERCEPTION_MODE": "REDIRECT",
            "ISTIO_META_WORKLOAD_NAME": self.app,
            "ISTIO_META_MESH_ID": "amarre.local",
            "PROXY_CONFIG": json.dumps((given[0] if given else {}) | here),
        }

    def start_process(self, changed: dict[str, str | None]) -> None:
        """
        Start the process of its image with the settings of its ConfigMap.

        Args:
            changed: Settings that differ here; None leaves one out.
        """
        read = self._cluster.kubectl(
            "-n", self.namespace, "get", "configmap", self.app, "-o", "json"
        )
        settings: dict[str, str | None] = json.loads(read)["data"]
        settings |= {"AMARRE_INSTANCE": self.name} | changed
        self.place.start(
            "process",
            *("env", "-C", str(ROOT), "-u", "PYTEST_CURRENT_TEST"),
            *(f"{key}={value}" for key, value in settings.items() if value is not None),
            *(sys.executable, "-m", "gateway" if self.app == "gateway" else f"{self.app}_svc"),
        )

    def proxy_is_ready(self) -> bool:
        """Return whether the agent says so."""
        return self.get(15021, "/healthz/ready")[0] == 200

    def process_is_ready(self) -> bool:
        """Return what the readiness probe of its container says."""
        (container,) = (c for c in self._resource["spec"]["containers"] if c["name"] == self.app)
        _, *probe = container["readinessProbe"]["exec"]["command"]
        command = self.place.command("env", "-C", str(ROOT), sys.executable, *probe)
        return not subprocess.run(command, capture_output=True, check=False).returncode

    def get(self, port: int, path: str) -> tuple[int, str]:
        """Return status and body of a page on the loopback address of the pod; 0 for none."""

        def ask() -> tuple[int, str]:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
                http = HTTPConnection("localhost")
                http.sock = connection
                http.request("GET", path)
                answer = http.getresponse()
                return answer.status, answer.read().decode(errors="replace")
            return 0, ""

        return inside(self.place.namespace, ask)

    def access_log(self) -> list[dict[str, Any]]:
        """Return the calls that its Envoy has logged, a second after their end."""
        lines = self.place.log("proxy").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def counter(self, pattern: str) -> int:
        """Return the sum of the counters and gauges of its Envoy that *pattern* names."""
        _, text = self.get(15000, f"/stats?usedonly&filter={quote(pattern)}")
        return sum(int(line.rpartition(": ")[2]) for line in text.splitlines() if ": " in line)
