"""etcd, the API server, controllers and istiod on loopback, without kubelet and scheduler."""

import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import yaml

from tests.production import builds, programs
from tests.production.cluster import pki

Resource = dict[str, Any]
START_SECONDS = 600
"""When a wait counts as hung; on a busy machine a process takes minutes to start."""
CONTROLLERS = (
    "namespace-controller,serviceaccount-controller,serviceaccount-token-controller,"
    "replicaset-controller,deployment-controller,endpointslice-controller,"
    "root-ca-certificate-publisher-controller,disruption-controller,job-controller"
)
ISTIOD = {
    "POD_NAME": "istiod-0",
    "POD_NAMESPACE": "istio-system",
    "REVISION": "default",
    "CLUSTER_ID": "Kubernetes",
    "PILOT_CERT_PROVIDER": "none",
    # What upstream's Envoy lacks: filters that only Istio's own build has.
    "PILOT_ENABLE_ALPN_FILTER": "false",
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "INJECTION_WEBHOOK_CONFIG_NAME": "",
    "VALIDATION_WEBHOOK_CONFIG_NAME": "",
}
LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ControlPlaneError(Exception):
    """A program did not start or failed; the message has its output."""


class ControlPlane:
    """The running programs; `stop` stops exactly those."""

    def __init__(self, folder: Path) -> None:
        """Prepare *folder* for the state of the programs."""
        self.folder = folder
        self.logs = folder / "log"
        self.logs.mkdir(parents=True)
        self.kubeconfig = folder / "kubeconfig"
        names = ("api", "etcd", "peer", "controllers", "webhook", "xds", "xds-tls", "debug", "own")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self._running: list[tuple[str, subprocess.Popen[bytes], IO[bytes]]] = []
        self._environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def start(self, values: Path) -> None:
        """
        Start everything, with the definitions and Istio's chart with *values* applied.

        Raises:
            ControlPlaneError: A program does not start.
        """
        pki.write(self.folder / "pki")
        self._api_server()
        self._controllers()
        for file in sorted(programs.path(builds.DEFINITIONS).glob("*.y*ml")):
            self.apply(file)
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        self._istiod(values)

    def stop(self) -> None:
        """Stop every started program, the last one first."""
        for name, process, log in reversed(self._running):
            stop_group(process, name)
            log.close()
        self._running.clear()

    def log(self, name: str) -> str:
        """Return the output of the program *name*."""
        return (self.logs / f"{name}.log").read_text(errors="replace")

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """
        Return the output of kubectl.

        Raises:
            ControlPlaneError: It fails.
        """
        done = self.try_kubectl(*arguments, text=text)
        if done.returncode:
            raise ControlPlaneError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def try_kubectl(
        self, *arguments: str, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Return the result of kubectl."""
        return subprocess.run(
            ["kubectl", *arguments],
            input=text,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def get(self, *arguments: str) -> list[Resource]:
        """Return the resources that kubectl returns."""
        found: list[Resource] = json.loads(self.kubectl("get", *arguments, "-o", "json"))["items"]
        return found

    def apply(self, source: Path | Iterable[Resource], *flags: str) -> str:
        """
        Apply files or resources on the server, strictly, and return kubectl's output.

        Raises:
            ControlPlaneError: One of them is refused.
        """
        always = ("apply", "--server-side", "--force-conflicts", "--validate=strict", *flags)
        if isinstance(source, Path):
            return self.kubectl(*always, "-f", str(source))
        return self.kubectl(*always, "-f", "-", text=as_list(source))

    def istioctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Return the result of istioctl."""
        return subprocess.run(
            [programs.program("istioctl"), *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def _spawn(self, name: str, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        log = (self.logs / f"{name}.log").open("wb")
        process = subprocess.Popen(
            arguments,
            cwd=self.folder,
            env=self._environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._running.append((name, process, log))
        return process

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        process = next(p for n, p, _ in self._running if n == name)
        if not eventually(ready, lambda: process.poll() is not None):
            raise ControlPlaneError(f"{name} does not start: {self.log(name)[-1000:]}")

    def _api_server(self) -> None:
        client, peer = (f"http://127.0.0.1:{self.ports[p]}" for p in ("etcd", "peer"))
        self._spawn(
            "etcd",
            programs.program("etcd"),
            *("--data-dir", "etcd", "--unsafe-no-fsync", "--log-level", "error"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}"),
        )
        self.kubeconfig.write_text(json.dumps(pki.kubeconfig(self.folder, self.ports["api"])))
        self._spawn(
            "kube-apiserver",
            programs.program("kube-apiserver"),
            *("--etcd-servers", client, "--secure-port", str(self.ports["api"])),
            *("--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"),
            *("--endpoint-reconciler-type", "none", "--client-ca-file", "pki/ca.crt"),
            *("--tls-cert-file", "pki/server.crt", "--tls-private-key-file", "pki/server.key"),
            *("--service-account-key-file", "pki/accounts.pub"),
            *("--service-account-signing-key-file", "pki/accounts.key"),
            *("--service-account-issuer", "https://kubernetes.default.svc"),
            *("--api-audiences", "istio-ca,https://kubernetes.default.svc"),
            *("--service-cluster-ip-range", "10.96.0.0/16", "--authorization-mode", "RBAC"),
            "--allow-privileged=true",
        )
        self._wait(
            "kube-apiserver", lambda: self.try_kubectl("get", "--raw", "/readyz").returncode == 0
        )

    def _controllers(self) -> None:
        self._spawn(
            "kube-controller-manager",
            programs.program("kube-controller-manager"),
            *("--kubeconfig", "kubeconfig", "--bind-address", "127.0.0.1"),
            *("--secure-port", str(self.ports["controllers"]), "--leader-elect=false"),
            *("--use-service-account-credentials=false", "--root-ca-file", "pki/ca.crt"),
            *("--service-account-private-key-file", "pki/accounts.key"),
            *("--controllers", CONTROLLERS),
        )
        account = ("-n", "default", "get", "serviceaccount", "default")
        self._wait("kube-controller-manager", lambda: self.try_kubectl(*account).returncode == 0)

    def _istiod(self, values: Path) -> None:
        mine, webhooks = self._chart(values)
        self.kubectl("create", "namespace", "istio-system")
        self.apply(mine)
        env = yaml.safe_load(values.read_text())["pilot"]["env"]
        self._spawn(
            "istiod",
            *(programs.program("pilot-discovery"), "discovery", "--kubeconfig", "kubeconfig"),
            *("--domain", "cluster.local", "--ctrlz_port", "0"),
            *("--grpcAddr", f"127.0.0.1:{self.ports['xds']}"),
            *("--secureGRPCAddr", f"127.0.0.1:{self.ports['xds-tls']}"),
            *("--httpAddr", f"127.0.0.1:{self.ports['debug']}"),
            *("--httpsAddr", f"127.0.0.1:{self.ports['webhook']}"),
            *("--monitoringAddr", f"127.0.0.1:{self.ports['own']}"),
            *("--tlsCertFile", "pki/istiod.crt", "--tlsKeyFile", "pki/istiod.key"),
            *("--caCertFile", "pki/ca.crt"),
            **ISTIOD,
            **env,
            INJECTION_DIRECTORY=str(self.folder / "inject"),
        )
        self._wait("istiod", lambda: answers(f"http://127.0.0.1:{self.ports['debug']}/ready"))
        self.apply(webhooks)

    def _chart(self, values: Path) -> tuple[list[Resource], list[Resource]]:
        """Render the chart for a cluster, with its webhooks, which fail closed."""
        operator = self.folder / "istio-operator.yaml"
        spec = {
            "profile": "default",
            "components": {
                "cni": {"enabled": True},
                "ingressGateways": [{"name": "istio-ingressgateway", "enabled": False}],
            },
            "values": yaml.safe_load(values.read_text()),
        }
        kind = {"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator"}
        operator.write_text(yaml.safe_dump({**kind, "spec": spec}))
        charts = ("--manifests", programs.program(builds.CHARTS))
        done = self.istioctl("manifest", "generate", *charts, "-f", str(operator))
        if done.returncode:
            raise ControlPlaneError(f"istioctl manifest generate: {done.stderr[-1000:]}")
        mine, webhooks = [], []
        for resource in yaml.load_all(done.stdout, Loader=LOADER):
            if not resource or resource["kind"] in _NOT_HERE:
                continue
            if resource["kind"].endswith("WebhookConfiguration"):
                webhooks += self._webhooks(resource)
            else:
                self._adapt(resource)
                mine.append(resource)
        return mine, webhooks

    def _webhooks(self, resource: Resource) -> list[Resource]:
        authority = pki.base64_of(self.folder / "pki" / "ca.crt")
        for webhook in resource["webhooks"]:
            path = webhook["clientConfig"]["service"]["path"]
            url = f"https://127.0.0.1:{self.ports['webhook']}{path}"
            webhook["clientConfig"] = {"url": url, "caBundle": authority}
            webhook["failurePolicy"] = "Fail"
        if not resource["kind"].startswith("Validating"):
            return [resource]
        # Istio's chart `base` has it: resources without a revision are validated as well.
        twin: Resource = json.loads(json.dumps(resource))
        twin["metadata"] = {"name": "istiod-default-validator"}
        for webhook in twin["webhooks"]:
            webhook["name"] = "validation.istio.io"
            rule = {"key": "istio.io/rev", "operator": "DoesNotExist"}
            webhook["objectSelector"] = {"matchExpressions": [rule]}
        return [resource, twin]

    def _adapt(self, resource: Resource) -> None:
        if resource["kind"] != "ConfigMap":
            return
        name, data = resource["metadata"]["name"], resource["data"]
        if name == "istio":
            # The filter istio.stats is in Istio's own build of Envoy only.
            mesh = yaml.safe_load(data["mesh"])
            data["mesh"] = yaml.safe_dump({**mesh, "defaultProviders": {}})
        if name == "istio-sidecar-injector":
            folder = self.folder / "inject"
            folder.mkdir()
            (folder / "config").write_text(data["config"])
            (folder / "values").write_text(data["values"])


_NOT_HERE = (
    "CustomResourceDefinition",
    "Deployment",
    "DaemonSet",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
)
"""Of Istio's chart: definitions are applied before, and what runs pods needs a kubelet."""


def as_list(resources: Iterable[Resource]) -> str:
    """Return *resources* as one document."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(resources)})


def free_ports(count: int) -> list[int]:
    """Return free loopback ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for one in sockets:
        one.close()
    return ports


def eventually(ready: Callable[[], bool], failed: Callable[[], bool] = lambda: False) -> bool:
    """Wait until *ready*; return False if it *failed* or timed out."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and not failed():
        if ready():
            return True
        time.sleep(0.25)
    return False


def answers(url: str) -> bool:
    """Return whether *url* returns 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, ssl.SSLError):
        return False


def stop_group(process: subprocess.Popen[bytes], name: str) -> None:
    """Stop the process group of *process*, by force after 10 s."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(10)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
        else:
            return
    raise ControlPlaneError(f"{name} (pid {process.pid}) does not end.")
