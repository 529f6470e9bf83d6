"""The four services and the edge in pods with istiod's configuration, and the sandbox outside."""

import json
import secrets
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mesh.chassis.call import User
from mesh.chassis.identity import SpiffeId
from mesh.chassis.tokens import SigningKey, mint
from mesh.contract import policy
from mesh.contract.policy import Method
from mesh.render import deployment
from tests.production.cluster import pods
from tests.production.cluster.control_plane import ControlPlane, Resource, eventually
from tests.production.cluster.traffic.network import NETWORK, Network, Place
from tests.production.cluster.traffic.pod import Pod

DEPLOYED = deployment.load(policy.load())
ADA = User("ada", "session-1", "ada@example.org", ("applicant",))
OPERATOR = User("grace", "session-2", "grace@example.org", ("operator",))
OUTSIDE = f"{NETWORK}.2"
REDCAP, MAIL = "redcap.example.org", "mail.example.org"
REDCAP_PORT, OUTBOX_PORT, SMTP_PORT = 3010, 3011, 3012
SITE = "dev.amarre.example.org"
PROXY = {"SECRET_TTL": "60s", "SECRET_GRACE_PERIOD_RATIO": "0.5"}
"""Certificates live for a minute, and are renewed after half of it."""
READS = ("auth.ListPasskeys", "survey.ListRequests", "health.GetStatus")
"""Methods that serve an empty request."""
_MODE = 0o600


@dataclass
class Mesh:
    """Everything that is running."""

    cluster: ControlPlane
    folder: Path
    key: SigningKey = field(default_factory=SigningKey.generate)
    pods: dict[str, list[Pod]] = field(default_factory=dict)

    def open(self) -> None:
        """Start the sandbox and a pod of every workload, and wait until they are ready."""
        self._write_secrets()
        found = {pods.app(pod): pod for pod in pods.run(self.cluster)}
        names = f"{OUTSIDE} {REDCAP} {MAIL}\n{found['edge']['status']['podIP']} {SITE}\n"
        self.network = Network(self.folder / "network", self.cluster, names)
        self.outside = self.network.place("outside", OUTSIDE)
        self.cluster.apply([outside("redcap", "survey", REDCAP, REDCAP_PORT)])
        self.cluster.apply([outside("mail", "auth", MAIL, SMTP_PORT)])
        self._start_sandbox()
        self.add(*(found[name] for name in ("edge", *(w.name for w in DEPLOYED.workloads))))
        assert eventually(self.answers), "no service takes a token"

    def close(self) -> None:
        """Stop everything."""
        self.network.close()

    def one(self, app: str) -> Pod:
        """Return the first pod of a workload."""
        return self.pods[app][0]

    def add(self, *resources: Resource) -> list[Pod]:
        """Start the pods of *resources*, like a kubelet: processes wait for their proxies."""
        started = [Pod(self.network, self.cluster, resource) for resource in resources]
        for pod in started:
            self.pods.setdefault(pod.app, []).append(pod)
            pod.start_proxy(**PROXY)
            if pod.app == "edge":
                _redirect_ports(pod)
        for pod in started:
            assert eventually(pod.proxy_is_ready), pod.place.log("proxy")[-3000:]
        processes = [pod for pod in started if pod.app != "edge"]
        for pod in processes:
            self.start_process(pod)
        for pod in processes:
            assert eventually(pod.process_is_ready), pod.place.log("process")[-3000:]
        return started

    def scale(self, app: str, replicas: int) -> None:
        """Scale *app* to this number of replicas, and start the new pods."""
        known = {pod.name for pod in self.pods[app]}
        found: list[Resource] = []

        def made() -> bool:
            found[:] = [
                pod
                for pod in pods.run(self.cluster)
                if pods.app(pod) == app and pod["metadata"]["name"] not in known
            ]
            return len(known) + len(found) >= replicas

        self._deployment(app, "scale", f"--replicas={replicas}")
        assert eventually(made), f"no {replicas} pods of {app}"
        self.add(*found)

    def drain(self, pod: Pod) -> None:
        """Remove one replica, *pod*, and stop it like a kubelet."""
        self.pods[pod.app].remove(pod)
        which = ("-n", pod.namespace, "pod", pod.name)
        self.cluster.kubectl("annotate", *which, "controller.kubernetes.io/pod-deletion-cost=-1")
        self._deployment(pod.app, "scale", f"--replicas={len(self.pods[pod.app])}")
        self.cluster.kubectl("wait", *which, "--for=jsonpath={.metadata.deletionTimestamp}")
        pod.end()
        pod.place.close()
        pods.run(self.cluster)

    def _deployment(self, app: str, verb: str, *arguments: str) -> None:
        namespace = DEPLOYED.workload(app).namespace
        self.cluster.kubectl("-n", namespace, verb, "deployment", app, *arguments)

    def answers(self) -> bool:
        """Return whether every service is serving; a first token makes it fetch Auth's key set."""
        methods = [DEPLOYED.mesh.method(name) for name in READS]
        found = made(self.one("gateway").place, self.requests(methods))
        return {"OK"} == {got["code"] for got in found}

    def requests(self, methods: Iterable[Method], **options: Any) -> list[dict[str, Any]]:
        """Return calls of *methods* by the gateway, on behalf of permitted users."""
        return [
            request(
                method,
                self.token(method.service, "gateway", OPERATOR if method.roles else ADA),
                **options,
            )
            for method in methods
        ]

    def start_process(self, pod: Pod) -> None:
        """Start the service of *pod*, with the sandbox as its external systems."""
        mine = self.folder / "secrets" / pod.app
        pod.start_process(
            {
                "AMARRE_SECRETS_DIR": str(mine),
                "AMARRE_PSEUDONYM_KEY_FILE": str(mine / "pseudonym-key"),
                # No collector runs here.
                "OTEL_EXPORTER_OTLP_ENDPOINT": None,
                "AMARRE_AUTH_SIGNING_KEY_FILE": str(mine / "auth-signing-key.pem"),
                "AMARRE_AUTH_SMTP_PASSWORD_FILE": None,
                "AMARRE_AUTH_SMTP_URL": f"smtp://{MAIL}:{SMTP_PORT}",
                "AMARRE_SURVEY_REDCAP_TOKEN_FILE": str(mine / "redcap-token"),
                "AMARRE_SURVEY_REDCAP_URL": f"http://{REDCAP}:{REDCAP_PORT}/api/",
            }
        )

    def ready(self) -> Path:
        """Write a ready file like `amarre up`, for tests from ``outside``; return it."""
        token = self.folder / "secrets/survey/redcap-token"
        content = {
            "urls": {"app": f"https://{SITE}", "outbox": f"http://127.0.0.1:{OUTBOX_PORT}"},
            "ca": str(self.cluster.folder / "pki/ca.crt"),
            "sandbox": {
                "api_url": f"http://{REDCAP}:{REDCAP_PORT}/api/",
                "token": token.read_text(),
            },
        }
        file = self.folder / "ready.json"
        file.write_text(json.dumps(content))
        return file

    def _start_sandbox(self) -> None:
        state, mine = self.folder / "state", self.folder / "secrets" / "survey"
        self.outside.start(
            "outbox",
            *(sys.executable, "-m", "sandbox.outbox", "--http", f"127.0.0.1:{OUTBOX_PORT}"),
            *("--smtp", f"{OUTSIDE}:{SMTP_PORT}", "--database", str(state / "mail.sqlite")),
        )
        self.outside.start(
            "redcap",
            *(sys.executable, "-m", "sandbox.redcap", "--listen", f"{OUTSIDE}:{REDCAP_PORT}"),
            *("--base-url", f"http://{REDCAP}:{REDCAP_PORT}"),
            *("--database", str(state / "redcap.sqlite")),
            *("--token-file", str(mine / "redcap-token")),
            *("--super-token-file", str(mine / "redcap-super-token")),
        )

    def token(self, audience: str, caller: str, user: User = ADA, age: float = 0) -> str:
        """Return a token of *user* like those of Auth for *caller*, *age* seconds old."""
        identity = SpiffeId.parse(DEPLOYED.workload(caller).spiffe_id)
        now = time.time() - age
        fresh = replace(user, signed_in_at=int(now))
        return mint(self.key, fresh, audience=audience, caller=identity, now=lambda: now)[0]

    def _write_secrets(self) -> None:
        private = self.key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        state = self.folder / "state"
        state.mkdir(parents=True)
        shared = {"pseudonym-key": secrets.token_hex(32)}
        own = {
            "auth": {
                "auth-signing-key.pem": private.decode(),
                "amarre_auth_database": f"sqlite+aiosqlite:///{state}/auth.sqlite",
            },
            "survey": {
                "redcap-token": secrets.token_hex(16),
                "redcap-super-token": secrets.token_hex(32),
                "amarre_survey_store": f"sqlite+aiosqlite:///{state}/survey.sqlite",
                "amarre_survey_cache": "memory",
            },
            "health": {},
            "gateway": {},
        }
        for app, files in own.items():
            folder = self.folder / "secrets" / app
            folder.mkdir(parents=True)
            for name, text in (shared | files).items():
                (folder / name).touch(_MODE)
                (folder / name).write_text(text)


def _redirect_ports(pod: Pod) -> None:
    """Redirect to the unprivileged ports, like the Service."""
    for port, target in ((80, 8080), (443, 8443)):
        redirect = f"-p tcp --dport {port} -j REDIRECT --to-ports {target}"
        pod.place.run("iptables", "-t", "nat", "-A", "PREROUTING", *redirect.split())


def made(place: Place, calls: list[dict[str, Any]], **options: Any) -> Any:
    """Make *calls* from *place*; return their outcomes, see `calls`."""
    text = json.dumps({"calls": calls, **options})
    return json.loads(place.python("tests.production.cluster.traffic.calls", text=text))


def request(method: Method, token: str = "", **options: Any) -> dict[str, Any]:
    """Return a call of *method* with an empty request, for `made`."""
    callee = DEPLOYED.workload(method.service)
    wanted = {"path": method.path, "host": f"{callee.host}:{callee.port}", "token": token}
    return wanted | {"first": method.streams} | options


def outside(name: str, user: str, host: str, port: int) -> Resource:
    """
    Return the environment that leads *user* to a program of the sandbox instead of the site's own.
    """
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": DEPLOYED.workload(user).namespace},
        "spec": {
            "hosts": [host],
            "exportTo": ["."],
            "location": "MESH_EXTERNAL",
            "addresses": [OUTSIDE],
            "ports": [{"number": port, "name": f"tcp-{name}", "protocol": "TCP"}],
            "resolution": "STATIC",
            "endpoints": [{"address": OUTSIDE}],
        },
    }
