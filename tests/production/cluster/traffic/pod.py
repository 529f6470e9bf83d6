"""
Pods in separate network namespaces: Istio's redirection, pilot-agent, a real Envoy, and the
production process.

The agent runs as user 1337, whom the redirection leaves out, and may read and write every file, so
that no folder has to be given to it. What it reaches of istiod, and nothing else of the machine, is
relayed to its loopback address.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote

from mesh.local.processes import envoy
from tests.production import builds, programs
from tests.production.cluster.control_plane import ControlPlane, Resource
from tests.production.cluster.traffic.network import ISTIOD, NETWORK, Network
from tests.production.namespaces import inside

PROXY_USER = "1337"


class Pod:
    """One pod of the API server, with its proxy and, except for the edge, its process."""

    def __init__(self, network: Network, cluster: ControlPlane, pod: Resource) -> None:
        """Open its namespace; nothing runs yet."""
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
        agent = programs.program("pilot-agent")
        role = "router" if self.app == "edge" else "sidecar"
        if role == "sidecar":
            self.place.run(
                *(agent, "istio-iptables", "-p", "15001", "-z", "15006", "-u", PROXY_USER),
                *("-g", PROXY_USER, "-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*"),
                *("-d", "15090,15021,15020"),
            )
        environment = self._variables(account) | self._bootstrap() | variables
        self.place.start(
            "proxy",
            *("setpriv", "--reuid", PROXY_USER, "--regid", PROXY_USER, "--clear-groups"),
            *("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"),
            *("env", "-i", "-C", str(folder), *(f"{k}={v}" for k, v in environment.items())),
            *(agent, "proxy", role, "--domain", f"{self.namespace}.svc.cluster.local"),
            *("--proxyLogLevel=warning", "--log_output_level=default:info"),
        )

    def _bootstrap(self) -> dict[str, str]:
        """Mount the ConfigMap that the agent merges into the bootstrap, if the pod has one."""
        volumes = {v["name"]: v for v in self._resource["spec"]["volumes"]}
        if "custom-bootstrap-volume" not in volumes:
            return {}
        name = volumes["custom-bootstrap-volume"]["configMap"]["name"]
        read = self._cluster.kubectl("-n", self.namespace, "get", "configmap", name, "-o", "json")
        folder = self.place.folder / "etc/istio/custom-bootstrap"
        folder.mkdir(parents=True)
        for key, text in json.loads(read)["data"].items():
            (folder / key).write_text(text)
        return {"ISTIO_BOOTSTRAP_OVERRIDE": str(folder / "custom_bootstrap.json")}

    def _variables(self, account: str) -> dict[str, str]:
        spec, folder = self._resource["spec"], self.place.folder
        given = [
            json.loads(variable["value"])
            for container in [*spec.get("initContainers", []), *spec["containers"]]
            for variable in container.get("env") or []
            if variable["name"] == "PROXY_CONFIG"
        ]
        template = programs.path(builds.CHARTS) / "envoy_bootstrap.json"
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
            *("env", "-C", str(programs.ROOT), "-u", "PYTEST_CURRENT_TEST"),
            *(f"{key}={value}" for key, value in settings.items() if value is not None),
            *(sys.executable, "-m", "gateway" if self.app == "gateway" else f"{self.app}_svc"),
        )

    def proxy_is_ready(self) -> bool:
        """Return whether the agent reports ready."""
        return self.get(15021, "/healthz/ready")[0] == 200

    def process_is_ready(self) -> bool:
        """Return the result of its container's readiness probe."""
        _, *probe = self._container["readinessProbe"]["exec"]["command"]
        command = self.place.command("env", "-C", str(programs.ROOT), sys.executable, *probe)
        return not subprocess.run(command, capture_output=True, check=False).returncode

    def end(self) -> None:
        """Stop the pod like a kubelet: pre-stop hook, process, proxy."""
        time.sleep(self._container["lifecycle"]["preStop"]["sleep"]["seconds"])
        for name in ("process", "proxy"):
            process = self.place.process(name)
            # To it alone: the agent ends its Envoy itself, after the draining.
            os.kill(process.pid, signal.SIGTERM)
            process.wait(self._resource["spec"]["terminationGracePeriodSeconds"])

    @property
    def _container(self) -> Resource:
        found: Resource = next(
            c for c in self._resource["spec"]["containers"] if c["name"] == self.app
        )
        return found

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
        """Return the sum of its Envoy's counters and gauges that match *pattern*."""
        _, text = self.get(15000, f"/stats?usedonly&filter={quote(pattern)}")
        return sum(int(line.rpartition(": ")[2]) for line in text.splitlines() if ": " in line)

    def serials(self) -> set[str]:
        """Return the serial numbers of the certificates that its Envoy presents."""
        status, text = self.get(15000, "/certs")
        if status != 200:
            return set()
        return {
            link["serial_number"]
            for certificate in json.loads(text)["certificates"]
            for link in certificate["cert_chain"]
        }
