"""The Terraform environments with the real provider, applied to a fake OpenStack."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.production.iac.cloud import Cloud, running
from tests.production.iac.provider import configuration
from tests.production.programs import MissingProgramsError

TREE = Path(__file__).parents[3] / "mesh/deploy/terraform"
OPERATORS = ["192.0.2.0/24", "198.51.100.0/24"]
SECONDS = 300

pytestmark = pytest.mark.skipif(
    shutil.which("terraform") is None, reason="Terraform is not installed."
)


class Environment:
    """A copy of one environment, with its own state, against one cloud."""

    def __init__(self, folder: Path, cloud: Cloud) -> None:
        self.folder = folder
        self.cloud = cloud
        account = {"USERNAME": "u", "PASSWORD": "p", "PROJECT_NAME": "p", "DOMAIN_NAME": "Default"}
        variables: dict[str, Any] = {
            "operators": OPERATORS,
            "key_pair": "ops",
            "image_id": "img",
            "external_network": "public",
            "name_servers": ["192.0.2.53"],
            "flavor": "m1.large",
            "template_id": "tpl",
            "worker_flavor": "m1.xlarge",
        }
        self.variables = {
            f"OS_{name}": value
            for name, value in {
                **account,
                "AUTH_URL": f"{cloud.base}/v3",
                "REGION_NAME": "R",
            }.items()
        } | {f"TF_VAR_{name}": _as_variable(value) for name, value in variables.items()}

    def run(self, action: str, *arguments: str, fails: bool = False, **variables: Any) -> str:
        """Run Terraform; return its output, without line breaks and frames."""
        given = {f"TF_VAR_{name}": _as_variable(value) for name, value in variables.items()}
        done = subprocess.run(
            ["terraform", action, *arguments],
            cwd=self.folder,
            env=os.environ
            | self.variables
            | given
            | {"TF_CLI_CONFIG_FILE": str(configuration()), "TF_IN_AUTOMATION": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        said = done.stdout + done.stderr
        assert fails is (done.returncode != 0), said[-4000:]
        return done.stdout if action == "output" else re.sub(r"[\s│]+", " ", said)

    def apply(self, *, fails: bool = False, **variables: Any) -> str:
        """Apply."""
        options = ("-auto-approve", "-input=false", "-no-color")
        return self.run("apply", *options, fails=fails, **variables)

    def plan(self, **variables: Any) -> str:
        """Plan."""
        return self.run("plan", "-input=false", "-no-color", **variables)


def _as_variable(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@pytest.fixture(scope="module", autouse=True)
def _provider() -> None:
    """Build the provider, which needs Go and its module proxy."""
    try:
        configuration()
    except MissingProgramsError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """A cloud without our resources."""
    with running() as made:
        yield made


def environment(name: str, cloud: Cloud, folder: Path) -> Environment:
    """Return a copy of the environment *name* in *folder*, initialized."""
    copied = folder / "terraform"
    shutil.copytree(TREE, copied, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
    made = Environment(copied / "environments" / name, cloud)
    made.run("init", "-input=false", "-no-color")
    made.run("validate", "-no-color")
    return made


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Staging, applied once; every test leaves it as it was."""
    with running() as cloud:
        made = environment("staging", cloud, tmp_path_factory.mktemp("staging"))
        made.apply()
        yield made


def test_applied_twice(staging: Environment) -> None:
    """
    Staging is applied to a cloud with several fitting flavors; a second run changes nothing.
    """
    assert {"amarre-staging-compose-1"} == {
        s["name"] for s in staging.cloud.things["servers"].values()
    }
    assert "No changes." in staging.plan()
    assert "0 added, 0 changed, 0 destroyed" in staging.apply()


def test_inventory(staging: Environment) -> None:
    """
    The inventory has the outer address for Ansible, the operators and the device of the data
    volume.
    """
    inventory = json.loads(staging.run("output", "-json", "inventory"))["all"]
    host = inventory["children"]["compose"]["hosts"]["amarre-staging-compose-1"]

    assert host["ansible_host"].startswith("203.0.113.")
    assert "10.42.0.10" == host["agents_listen"]
    assert OPERATORS == inventory["vars"]["base_operators"]
    assert "debian" == inventory["vars"]["ansible_user"]
    (volume,) = staging.cloud.things["volumes"]
    assert f"/dev/disk/by-id/virtio-{volume[:20]}" == host["docker_volume"]


def test_flavor_too_small(cloud: Cloud, tmp_path: Path) -> None:
    """
    A flavor that is too small for a role is rejected by name before anything is created.
    """
    said = environment("staging", cloud, tmp_path).apply(fails=True, flavor="m1.small")

    assert "flavor of role compose is smaller than the role asks for" in said
    assert not cloud.things.get("servers")
    assert not cloud.things.get("subnets")


@pytest.mark.parametrize(
    "operators",
    [
        pytest.param(["2001:db8::/32"], id="IPv6"),
        pytest.param(["192.0.2.7"], id="no mask"),
        pytest.param(["0.0.0.0/0"], id="everybody"),
        pytest.param([], id="nobody"),
    ],
)
def test_refused_operators(staging: Environment, operators: list[str]) -> None:
    """
    Operators that the cloud or common sense would reject are rejected before a rule is deleted.
    """
    before = set(staging.cloud.things["security-group-rules"])
    said = staging.apply(fails=True, operators=operators)

    assert "operators must" in said
    assert before == set(staging.cloud.things["security-group-rules"])


def test_a_range_twice(staging: Environment) -> None:
    """
    A duplicate range counts once.
    """
    assert "No changes." in staging.plan(operators=[*OPERATORS, OPERATORS[0]])


def test_another_role(staging: Environment) -> None:
    """
    Adding and removing a role leaves the host of the other unchanged.
    """
    before = {key: dict(value) for key, value in staging.cloud.things["servers"].items()}
    main = staging.folder / "main.tf"
    alone = main.read_text()
    more = alone.replace(
        "    compose = {",
        "    api     = { subnet = 1, count = 1, cores = 4, memory_gb = 8 }\n    compose = {",
        1,
    ).replace("compose = var.flavor }", "compose = var.flavor, api = var.flavor }")
    assert more.count("api") == 2

    main.write_text(more)
    staging.apply()
    assert 2 == len(staging.cloud.things["servers"])
    assert before.items() <= staging.cloud.things["servers"].items()

    main.write_text(alone)
    staging.apply()
    assert before == staging.cloud.things["servers"]
    assert "No changes." in staging.plan()


def test_autoscaled_nodes_stay(cloud: Cloud, tmp_path: Path) -> None:
    """
    Production is applied twice without changes, also after the autoscaler added nodes.
    """
    production = environment("production", cloud, tmp_path)
    production.apply()
    assert "No changes." in production.plan()

    cloud.scale(5)

    assert "0 added, 0 changed, 0 destroyed" in production.apply()
    assert [5] == [cluster["node_count"] for cluster in cloud.things["clusters"].values()]
