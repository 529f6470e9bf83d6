"""Compose for staging: the file, its proxies' files, its secrets."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh import topology
from mesh.deploy import authority, compose_check
from mesh.local.processes import envoy
from mesh.render import compose, docker, registry
from mesh.render.compose import digests, envoys
from mesh.render.compose.workloads import SITE_VARIABLES
from mesh.render.readers import READERS, WORKLOADS, owners
from mesh.topology import Stage
from tests.mesh.deploy.containers import load
from tests.production.containers.stack import SECTIONS, STOP, TRY, documented

Content = dict[str, Any]
FILES = compose.render()
FOLDER = registry.committed("compose")
CONTENT: Content = yaml.safe_load(FILES["compose.yaml"])
SERVICES: Content = CONTENT["services"]
DEPLOYED = load()
DOCKER = docker.render()
OWNERS = owners()


def test_page() -> None:
    """
    The how-to page has the sections whose commands `make test-containers` runs.
    """
    assert [] == [section for section in SECTIONS if not documented(section)]
    lines = documented(TRY) + documented(STOP)
    for end in ("build", "up --detach --wait", "down"):
        assert any(line.endswith(end) for line in lines), end


def test_committed() -> None:
    """
    The committed files are up to date with topology and contracts.
    """
    assert [] == registry.drift(FILES, FOLDER)


def test_schema(tmp_path: Path) -> None:
    """
    The file follows the Compose specification.
    """
    path = tmp_path / "compose.yaml"
    path.write_text(FILES["compose.yaml"])
    program = Path(sys.executable).with_name("check-jsonschema")
    command = [str(program), "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stdout + done.stderr


def test_no_fault() -> None:
    """
    Every mounted file is committed, every name is defined, and only the edge is published.
    """
    assert [] == compose_check.faults(CONTENT, FOLDER)


def mount(content: Content) -> None:
    content["services"]["prometheus"]["volumes"].append("./telemetry/none.yaml:/x:ro")


def host(content: Content) -> None:
    content["services"]["auth"]["volumes"].append("/var/run/docker.sock:/var/run/docker.sock")


def volume(content: Content) -> None:
    del content["volumes"]["postgres"]


def depend(content: Content) -> None:
    content["services"]["survey"]["depends_on"]["postgresql"] = {"condition": "service_healthy"}


def publish(content: Content) -> None:
    content["services"]["survey-envoy"]["ports"] = ["3001:3001"]


def join(content: Content) -> None:
    content["networks"]["data"] = {}


def writable(content: Content) -> None:
    content["services"]["auth"]["read_only"] = False


def secret(content: Content) -> None:
    del content["secrets"]["redcap-token"]


def password(content: Content) -> None:
    content["services"]["auth"]["environment"]["AMARRE_AUTH_DATABASE"] = "x://auth:password@db"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (mount, "service prometheus: mounts ./telemetry/none.yaml, which does not exist"),
        (host, "service auth: mounts /var/run/docker.sock of the host"),
        (volume, "mounts the volume postgres, which is not declared"),
        (depend, "service survey: depends on postgresql, which is not a service"),
        (publish, "service survey-envoy: publishes 3001:3001"),
        (join, "network data: is not internal"),
        (writable, "service auth: its root file system is writable"),
        (secret, "service survey: needs the secret redcap-token"),
        (password, "service auth: has a password in its environment"),
    ],
)
def test_found(damage: Callable[[Content], None], said: str) -> None:
    """
    The checks detect each kind of error, with the location.
    """
    damaged = copy.deepcopy(CONTENT)
    damage(damaged)

    assert any(said in fault for fault in compose_check.faults(damaged, FOLDER))


def test_every_process() -> None:
    """
    Every production process is included; the sandbox only in its profile.
    """
    for process in topology.PROCESSES:
        expected = process.stage is not Stage.LOCAL
        assert expected is (process.name in SERVICES)
        if expected:
            in_profile = SERVICES[process.name].get("profiles") == ["sandbox"]
            assert in_profile is (process.stage is Stage.OUTSIDE_PRODUCTION)


def test_only_proxies_meet() -> None:
    """
    Only proxies are on the mesh network, not workloads, and proxies are not on the data network.
    """
    for workload in DEPLOYED.workloads:
        assert not {"mesh", "edge"} & set(SERVICES[workload.name]["networks"])
        proxy = SERVICES[envoys.container(workload)]["networks"]
        assert "mesh" in proxy
        assert not {"data", "outside"} & set(proxy)


def mounted(service: str) -> dict[str, str]:
    """Return the mounts of *service*, by the path inside the container."""
    parts = (volume.split(":") for volume in SERVICES[service]["volumes"])
    return {part[1]: part[0] for part in parts}


def test_a_proxy_has_its_own_certificate_only() -> None:
    """
    Each proxy mounts only the certificate volume of its workload; engines before API 1.45 silently
    ignore a sub-path, so none is used.
    """
    for workload in DEPLOYED.workloads:
        found = mounted(envoys.container(workload))

        assert f"certs-{workload.name}" == found[envoys.CERTS]
        assert 1 == len([source for source in found.values() if source.startswith("certs-")])
        assert f"certs-{workload.name}" == mounted("authority")[f"{envoys.CERTS}/{workload.name}"]
    assert "subpath" not in FILES["compose.yaml"]


def test_certificates_outlive_the_engine() -> None:
    """
    Certificates are on disk: after a restart of the engine, every proxy finds its own.
    """
    for workload in DEPLOYED.workloads:
        assert {} == CONTENT["volumes"][f"certs-{workload.name}"]


class TestReaders:
    """Everything that a container reads or writes belongs to the user it runs as."""

    @pytest.mark.parametrize("name", SERVICES)
    def test_user(self, name: str) -> None:
        """
        Each container runs as its reader's user; none depends on the image's default.
        """
        reader = READERS.get(name.removeprefix("gateway-"), WORKLOADS)
        if name.endswith("-envoy"):
            reader = READERS["envoy"]
        expected = "0:0" if name == "volume-owners" else reader.user

        assert expected == SERVICES[name]["user"]

    @pytest.mark.parametrize("name", SERVICES)
    def test_secrets(self, name: str) -> None:
        """
        Each secret that a container mounts is owned by the user of that container.
        """
        names = [
            s["source"] if isinstance(s, dict) else s for s in SERVICES[name].get("secrets", [])
        ]
        names += [
            secret
            for source in (v.partition(":")[0] for v in SERVICES[name].get("volumes", []))
            for secret in OWNERS
            if source.startswith("./secrets/")
            and secret.startswith(source.removeprefix("./secrets/") + "/")
        ]
        for secret in names:
            assert OWNERS[secret].user == SERVICES[name]["user"], secret

    def test_volumes(self) -> None:
        """
        Before containers start, each volume on disk is owned by the user that writes to it.
        """
        given = {
            words[2].rpartition("/")[2]: words[1]
            for words in map(str.split, SERVICES["volume-owners"]["command"][0].splitlines())
        }
        on_disk = {name for name, options in CONTENT["volumes"].items() if not options}

        assert on_disk == set(given)
        for name, service in SERVICES.items():
            for volume in service.get("volumes", []):
                source, _, rest = volume.partition(":")
                if source in on_disk and not rest.endswith(":ro") and name != "volume-owners":
                    assert given[source] == service["user"], (name, source)
                    assert "volume-owners" in service["depends_on"], name

    def test_file(self) -> None:
        """
        The table that the host's script reads contains every secret of the Compose file.
        """
        assert set(CONTENT["secrets"]) <= set(json.loads(FILES["readers.json"]))


class TestHealth:
    """Health checks check liveness, and that the edge responds."""

    def test_images(self) -> None:
        """
        An unavailable dependency does not make an image unhealthy: any response is enough.
        """
        checks = [line for line in DOCKER["Dockerfile"].splitlines() if "HEALTHCHECK -" in line]

        assert len(checks) > 5
        assert [] == [line for line in checks if not line.endswith('"alive"]')]

    def test_edge(self) -> None:
        """
        `up --wait` waits until the edge responds over HTTPS.
        """
        test = SERVICES["gateway"]["healthcheck"]["test"]

        assert ["https", "gateway-envoy:8443", "/healthz"] == test[4:7]
        assert {"telemetry"} <= set(SERVICES["gateway-envoy"]["networks"])

    def test_database(self) -> None:
        """
        PostgreSQL is healthy only once a service can log in to its own database over TCP.
        """
        (_, command) = SERVICES["postgres"]["healthcheck"]["test"]

        assert "--host 127.0.0.1" in command
        assert "--dbname survey" in command


class TestDigests:
    """`up` recreates a container whose mounted files have changed."""

    def test_changed(self) -> None:
        """
        The label changes only with the files of the same container.
        """
        services: Content = {
            name: {"volumes": list(SERVICES[name]["volumes"])} for name in ("auth-envoy", "loki")
        }
        labels = []
        for text in ("a", "a", "b"):
            digests.label(services, {"envoy/auth-envoy/envoy.yaml": text})
            labels.append(tuple(service["labels"][digests.LABEL] for service in services.values()))

        assert labels[0] == labels[1]
        assert labels[1][0] != labels[2][0]
        assert labels[1][1] == labels[2][1]

    @pytest.mark.parametrize("name", SERVICES)
    def test_every_container(self, name: str) -> None:
        """
        Every container that mounts a committed file has the label.
        """
        sources = [v.partition(":")[0] for v in SERVICES[name].get("volumes", [])]
        committed = any(s.startswith(".") and not s.startswith("./secrets") for s in sources)

        assert committed is (digests.LABEL in SERVICES[name].get("labels", {}))


class TestTelemetry:
    def test_profiles(self) -> None:
        """
        Without the profile telemetry, nothing is exported: the endpoint comes from site.env.
        """
        for workload in DEPLOYED.workloads:
            variables = SERVICES[workload.name]["environment"]

            assert "${AMARRE_OTLP_ENDPOINT:-}" == variables["OTEL_EXPORTER_OTLP_ENDPOINT"]

    def test_one_path(self) -> None:
        """
        Metrics are scraped and not also pushed, so that each series exists once.
        """
        for workload in DEPLOYED.workloads:
            assert "none" == SERVICES[workload.name]["environment"]["OTEL_METRICS_EXPORTER"]

    def test_other_applications(self) -> None:
        """
        Prometheus reads the scrape targets that a site adds.
        """
        source = mounted("prometheus")["/etc/prometheus/applications"]

        assert (FOLDER / source).is_dir()


def test_redirect() -> None:
    """
    Port 80 redirects to HTTPS, health checks excepted; port 443 serves the application.
    """
    bootstrap = yaml.safe_load(FILES["envoy/gateway-envoy/envoy.yaml"])
    routes = {}
    for listener in bootstrap["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            for found in chain["filters"]:
                config = found["typed_config"].get("route_config", {})
                for host in config.get("virtual_hosts", []):
                    routes[config["name"]] = host["routes"]

    http = routes["edge_http"]
    assert ["/healthz", "/"] == [next(iter(route["match"].values())) for route in http]
    assert http[1]["redirect"]["https_redirect"]
    assert not any("redirect" in route for route in routes["edge_https"])


def test_sandbox_settings() -> None:
    """
    Both examples of site.env set every required value, the sandbox's with names that containers
    resolve; browsers reach the sandbox on loopback.
    """
    for name in ("site.env.example", "site.env.sandbox"):
        lines = dict(
            line.split("=", 1) for line in FILES[name].splitlines() if not line.startswith("#")
        )
        assert set(SITE_VARIABLES) <= set(lines), name
    assert "'smtp://outbox:3012'" in FILES["site.env.sandbox"]
    assert "COMPOSE_PROFILES=sandbox" in FILES["site.env.sandbox"]
    assert ["127.0.0.1:3010:3010"] == SERVICES["redcap"]["ports"]
    assert ["127.0.0.1:3011:3011"] == SERVICES["outbox"]["ports"]
    assert "http://localhost:3010" in SERVICES["redcap"]["command"]


@pytest.mark.envoy
@pytest.mark.parametrize("name", [w.name for w in DEPLOYED.workloads])
async def test_envoy_takes_its_files(name: str, svids: Path, tmp_path: Path) -> None:
    """
    The real Envoy accepts the files that Compose mounts.
    """
    certs = str(svids / name)
    moved = {envoys.FOLDER: str(tmp_path), envoys.CERTS: certs, envoys.EDGE_TLS: certs}
    prefix = f"envoy/{name}-envoy/"
    for path, text in FILES.items():
        if path.startswith(prefix):
            for old, new in moved.items():
                text = text.replace(old, new)
            target = tmp_path / path.removeprefix(prefix)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)

    await envoy.validate(tmp_path)


class TestAuthority:
    def test_healthy(self) -> None:
        """
        It is healthy once every proxy has its key, by a check that starts no interpreter.
        """
        kind, command = SERVICES["authority"]["healthcheck"]["test"]

        assert "CMD-SHELL" == kind
        for workload in DEPLOYED.workloads:
            assert f"test -s {envoys.CERTS}/{workload.name}/tls.key" in command

    def test_wrong_arguments(self) -> None:
        """
        Wrong arguments end with status 2.
        """
        assert 2 == authority.main(["run"])
