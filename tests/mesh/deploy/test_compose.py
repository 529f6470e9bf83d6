"""Compose for staging: the file, its proxies' files, its secrets."""

import copy
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from mesh import topology
from mesh.deploy import authority, compose_check, compose_secrets
from mesh.local.processes import envoy
from mesh.render import alertmanager, compose, docker, registry
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
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change owners")


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


class TestSecrets:
    def test_new_installation(self, tmp_path: Path) -> None:
        """
        Everything that Compose declares is created, or the operator is told what to add where.
        """
        made = set(compose_secrets.make(tmp_path / "secrets"))
        wanted = set(compose_secrets.missing(tmp_path / "secrets"))

        assert set(CONTENT["secrets"]) <= made | wanted
        assert {"redcap-token", "smtp-password", "alertmanager/webhook-token"} <= wanted

    def test_trial(self, tmp_path: Path) -> None:
        """
        For testing with the sandbox, nothing is left for the operator to add.
        """
        compose_secrets.make(tmp_path, sandbox=True)

        assert {} == compose_secrets.missing(tmp_path)
        assert set(OWNERS) <= {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")}

    def test_alertmanager(self, tmp_path: Path) -> None:
        """
        Every secret file in Alertmanager's configuration is required, and the chat's is a URL,
        since Alertmanager rejects anything else at each alert.
        """
        compose_secrets.make(tmp_path, sandbox=True)
        words = set(alertmanager.render()["alertmanager.yaml"].split())
        named = {PurePosixPath(word).name for word in words if "/secrets/" in word}

        assert named == {p.name for p in (tmp_path / "alertmanager").iterdir()}
        assert (tmp_path / "alertmanager/slack-url").read_text().startswith("http")

    def test_second_run(self, tmp_path: Path) -> None:
        """
        Existing files are kept.
        """
        compose_secrets.make(tmp_path)
        before = {p.name: p.read_text() for p in tmp_path.iterdir()}

        assert [] == compose_secrets.make(tmp_path)
        assert before == {p.name: p.read_text() for p in tmp_path.iterdir()}

    def test_they_fit_together(self, tmp_path: Path) -> None:
        """
        URLs contain the passwords that the servers are given.
        """
        compose_secrets.make(tmp_path)

        def read(name: str) -> str:
            return (tmp_path / name).read_text()

        assert f"auth:{read('postgres-auth-password')}@" in read("amarre_auth_database")
        assert f"survey:{read('postgres-survey-password')}@" in read("amarre_survey_store")
        assert f":{read('redis.conf').split()[1]}@redis" in read("amarre_survey_cache")

    @needs_root
    def test_owners(self, tmp_path: Path) -> None:
        """
        Each file belongs to its reader and only its reader can read it.
        """
        compose_secrets.make(tmp_path, sandbox=True)
        compose_secrets.give(tmp_path)

        for name, reader in OWNERS.items():
            found = (tmp_path / name).stat()
            assert (reader.uid, reader.gid, 0o400) == (
                found.st_uid,
                found.st_gid,
                stat.S_IMODE(found.st_mode),
            ), name

    @needs_root
    def test_edge_certificate(self, tmp_path: Path) -> None:
        """
        The edge's certificate is behind the link that Envoy watches; a new one changes the link,
        the same one does not.
        """
        compose_secrets.make(tmp_path, sandbox=True)
        links = []
        for renew in (False, False, True):
            if renew:
                for file in ("tls.crt", "tls.key"):
                    (tmp_path / "edge" / file).unlink()
                compose_secrets.make(tmp_path, sandbox=True)
            compose_secrets.give(tmp_path)
            links.append((tmp_path / "edge/..data").readlink())
            for file in ("tls.crt", "tls.key"):
                text = (tmp_path / "edge" / file).read_text()
                assert text == (tmp_path / "edge/..data" / file).read_text()

        assert links[0] == links[1] != links[2]

    @needs_root
    def test_wrong_key(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """
        A key that does not match the certificate is reported, and nothing is published.
        """
        compose_secrets.make(tmp_path, sandbox=True)
        (tmp_path / "edge/tls.key").write_text((tmp_path / "auth-signing-key.pem").read_text())

        assert 2 == compose_secrets.main([str(tmp_path)])
        assert "is not the private key of" in capsys.readouterr().err
        assert not (tmp_path / "edge/..data").exists()

    def test_not_root(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Without the permission to change owners, it fails with one message.
        """
        monkeypatch.setattr("os.geteuid", lambda: 1000)

        assert 2 == compose_secrets.main([str(tmp_path)])
        assert "Run this as root" in capsys.readouterr().err

    def test_bare_host(self, tmp_path: Path) -> None:
        """
        It runs on a host with only Python and openssl, by its path.
        """
        program = [sys.executable, "-I", "-S", compose_secrets.__file__, "--sandbox", str(tmp_path)]
        done = subprocess.run(program, capture_output=True, text=True, check=False)

        assert (0 if os.geteuid() == 0 else 2) == done.returncode, done.stderr


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
