"""Compose for staging: the file, its proxies' files, its secrets."""

import copy
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh import topology
from mesh.deploy import authority, compose_check, compose_secrets
from mesh.local import envoy
from mesh.render import compose, registry
from mesh.render.compose import envoys
from mesh.topology import Stage
from tests.mesh.deploy.containers import load

Content = dict[str, Any]
FILES = compose.render()
FOLDER = registry.committed("compose")
CONTENT: Content = yaml.safe_load(FILES["compose.yaml"])
SERVICES: Content = CONTENT["services"]
DEPLOYED = load()


def test_committed() -> None:
    """
    The committed files are those that topology and contracts give.
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
    Every mounted file is there and committed, every name leads somewhere, only the edge is open.
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
        (mount, "service prometheus: mounts ./telemetry/none.yaml, which is not there"),
        (host, "service auth: mounts /var/run/docker.sock of the host"),
        (volume, "mounts the volume postgres, which is not declared"),
        (depend, "service survey: depends on postgresql, which is no service"),
        (publish, "service survey-envoy: publishes 3001:3001"),
        (join, "network data: is not internal"),
        (writable, "service auth: its root is writable"),
        (secret, "service survey: needs the secret redcap-token"),
        (password, "service auth: has a password in its environment"),
    ],
)
def test_found(damage: Callable[[Content], None], said: str) -> None:
    """
    The checks find damage of each kind and name the place.
    """
    damaged = copy.deepcopy(CONTENT)
    damage(damaged)

    assert any(said in fault for fault in compose_check.faults(damaged, FOLDER))


def test_every_process() -> None:
    """
    Every process but those of a laptop alone is there; stand-ins only in their profile.
    """
    for process in topology.PROCESSES:
        expected = process.stage is not Stage.LOCAL
        assert expected is (process.name in SERVICES)
        if expected:
            in_profile = SERVICES[process.name].get("profiles") == ["sandbox"]
            assert in_profile is (process.stage is Stage.OUTSIDE_PRODUCTION)


def test_only_proxies_meet() -> None:
    """
    Workloads are on no network of the mesh; their proxies alone are, and they meet no data.
    """
    for workload in DEPLOYED.workloads:
        assert not {"mesh", "edge"} & set(SERVICES[workload.name]["networks"])
        proxy = SERVICES[envoys.container(workload)]["networks"]
        assert "mesh" in proxy
        assert not {"data", "outside"} & set(proxy)


def test_a_proxy_has_its_own_certificate_only() -> None:
    """
    Each proxy sees the certificate of its workload and no other key.
    """
    for workload in DEPLOYED.workloads:
        mounted = SERVICES[envoys.container(workload)]["volumes"]
        (certs,) = [v for v in mounted if isinstance(v, dict)]

        assert {"subpath": workload.name} == certs["volume"]


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
        Everything that Compose declares is made, or a person is told what to put where.
        """
        made = set(compose_secrets.make(tmp_path / "secrets"))
        wanted = set(compose_secrets.missing(tmp_path / "secrets"))

        assert set(CONTENT["secrets"]) <= made | wanted
        assert {"redcap-token", "smtp-password"} <= wanted

    def test_second_run(self, tmp_path: Path) -> None:
        """
        What is there is kept.
        """
        compose_secrets.make(tmp_path)
        before = {p.name: p.read_text() for p in tmp_path.iterdir()}

        assert [] == compose_secrets.make(tmp_path)
        assert before == {p.name: p.read_text() for p in tmp_path.iterdir()}

    def test_they_fit_together(self, tmp_path: Path) -> None:
        """
        URLs hold the passwords that the servers are given.
        """
        compose_secrets.make(tmp_path)

        def read(name: str) -> str:
            return (tmp_path / name).read_text()

        assert f"auth:{read('postgres-auth-password')}@" in read("amarre_auth_database")
        assert f"survey:{read('postgres-survey-password')}@" in read("amarre_survey_store")
        assert f":{read('redis.conf').split()[1]}@redis" in read("amarre_survey_cache")

    def test_private(self, tmp_path: Path) -> None:
        """
        Nobody else can read them.
        """
        compose_secrets.make(tmp_path)

        assert {0o600} == {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}


class TestAuthority:
    def test_check_before_and_after(self, svids: Path, tmp_path: Path) -> None:
        """
        The health check fails until every workload has a certificate.
        """
        assert 1 == authority.main(["check", str(tmp_path), str(tmp_path)])
        assert 0 == authority.main(["check", str(tmp_path), str(svids)])

    def test_wrong_arguments(self) -> None:
        """
        Wrong arguments are told apart from certificates that are missing.
        """
        assert 2 == authority.main(["run"])
