"""The Ansible roles: static checks, and a run if Ansible is installed."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mesh.deploy import ansible_check as check
from mesh.deploy.check import DEPLOY
from mesh.render.compose.workloads import SITE_VARIABLES
from tests.production.iac.host import documented_move

ROOT = DEPLOY / "ansible"
RECIPIENT = "age1" + "q" * 58
SITE = {"agents_listen": "10.0.0.5"}


def program(name: str) -> str:
    """Return a program of Ansible; skip the test if it is not installed."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (it is in no lock of this project)")
    return found


def test_no_fault() -> None:
    """
    Every template, file and handler of a task exists, and every mode is set.
    """
    assert [] == check.faults(ROOT)


def test_readme() -> None:
    """
    The README has the commands that `make test-iac` runs to move data to a volume.
    """
    commands = documented_move()

    assert "mkfs.xfs" in commands
    assert "/var/lib/docker/volumes" in commands


def test_site_variables() -> None:
    """
    The role requires exactly the variables of the Compose file.
    """
    defaults = yaml.safe_load((ROOT / "roles/compose_stack/defaults/main.yml").read_text())

    assert {*SITE_VARIABLES, "AMARRE_REGISTRY", "AMARRE_VERSION"} == set(
        defaults["compose_stack_needed"]
    )


@pytest.mark.parametrize(
    ("path", "old", "new", "said"),
    [
        ("base/tasks/main.yml", "sshd.conf.j2", "ssh.conf.j2", "there is no templates/ssh.conf.j2"),
        ("base/tasks/main.yml", "notify: Reload sshd", "notify: Reload", "which is not a handler"),
        ("agents/tasks/main.yml", '    mode: "0755"\n', "", "sets no mode"),
        ("docker/tasks/main.yml", "ansible.builtin.apt", "community.x.apt", "ansible.builtin"),
        (
            "docker/tasks/volume.yml",
            "src: docker-",
            "src: ",
            "there is no templates/service.conf.j2",
        ),
        ("backups/files/amarre-backup", "dump() {", "dump( {", "amarre-backup: "),
    ],
)
def test_found(tmp_path: Path, path: str, old: str, new: str, said: str) -> None:
    """
    Roles that would fail on a host are detected, with the location.
    """
    shutil.copytree(ROOT, tmp_path / "ansible")
    file = tmp_path / "ansible" / "roles" / path
    content = file.read_text()
    assert old in content
    file.write_text(content.replace(old, new, 1))

    assert any(said in fault for fault in check.faults(tmp_path / "ansible"))


def play(folder: Path, *options: str, **changes: object) -> subprocess.CompletedProcess[str]:
    """Run the play against a temporary root, without what needs a whole host."""
    inventory = folder / "inventory.json"
    host = {"ansible_connection": "local", "ansible_host": "127.0.0.1", "ansible_become": False}
    inventory.write_text(json.dumps({"all": {"children": {"compose": {"hosts": {"a": host}}}}}))
    roles = ("base", "docker", "compose_stack", "agents", "backups")
    variables = {f"{role}_root": str(folder / "root") for role in roles} | {
        "ansible_python_interpreter": sys.executable,
        "backups_recipient": RECIPIENT,
        "base_operators": ["192.0.2.0/24", "2001:db8::/32"],
        "compose_stack_archive": str(folder / "stack.tar"),
        "compose_stack_site": {
            **SITE_VARIABLES,
            "AMARRE_REGISTRY": "registry.example.org/amarre",
            "AMARRE_VERSION": "1",
        },
        **changes,
    }
    command = [
        *(program("ansible-playbook"), "-i", str(inventory), str(ROOT / "site.yml")),
        *("--skip-tags", "system", "-e", json.dumps(variables)),
        *options,
    ]
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_GATHERING": "explicit",
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_PIPELINING": "True",
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a play that ran once."""
    folder = tmp_path_factory.mktemp("host")
    done = play(folder, **SITE)
    assert 0 == done.returncode, done.stdout + done.stderr
    return folder


def test_play(played: Path) -> None:
    """
    The roles write units, settings and scripts of a host, with the site's values; Prometheus
    scrapes the configured address of node exporter.
    """
    root = played / "root"
    unit = (root / "etc/systemd/system/amarre.service").read_text()
    stack = root / "opt/amarre/mesh"
    assert (stack / "deploy/compose_secrets.py").is_file()
    assert 0o644 == stat.S_IMODE((stack / "deploy/compose/compose.yaml").stat().st_mode)
    assert (stack / "observability/prometheus/rules").is_dir()
    assert not (stack / "deploy/compose/secrets").exists()
    assert "amarre-compose up --detach --wait" in unit
    assert "Requires=" not in unit
    command = (root / "usr/local/sbin/amarre-compose").read_text()
    assert "cd /opt/amarre/mesh/deploy/compose" in command
    assert 'docker compose --env-file site.env "$@"' in command
    site = (root / "opt/amarre/mesh/deploy/compose/site.env").read_text()
    assert "AMARRE_GATEWAY_ORIGINS='https://amarre.example.org'" in site
    assert "AMARRE_HOST_ADDRESS='10.0.0.5'" in site
    assert "COMPOSE_PROFILES=telemetry" in site
    assert "AMARRE_OTLP_ENDPOINT='http://otel-collector:4317'" in site
    exporter = (root / "etc/default/prometheus-node-exporter").read_text()
    assert "--web.listen-address=10.0.0.5:9100" in exporter
    firewall = (root / "etc/nftables.conf").read_text()
    assert "policy drop" in firewall
    assert "ip saddr 192.0.2.0/24 tcp dport 22 accept" in firewall
    assert "ip6 saddr 2001:db8::/32 tcp dport 22 accept" in firewall
    assert "tcp dport 22 accept" not in firewall.replace("0/24 tcp", "").replace("/32 tcp", "")
    restarted = root / "etc/systemd/system/nftables.service.d/amarre.conf"
    assert "ExecStop=/usr/sbin/nft delete table inet amarre" in restarted.read_text()
    for folder, mode in (("etc/systemd/system", 0o755), ("usr/local/sbin", 0o755)):
        assert mode == stat.S_IMODE((root / folder).stat().st_mode)
    assert "ip saddr { 10.0.0.0/8, 172.16.0.0/12 } tcp dport 9100 accept" in firewall
    assert RECIPIENT in (root / "etc/amarre/backup.env").read_text()
    assert os.access(root / "usr/local/sbin/amarre-backup", os.X_OK)
    metrics = root / "var/lib/prometheus/node-exporter/amarre-backup.prom"
    assert "amarre_backup_last_success_timestamp_seconds 0\n" == metrics.read_text()


def test_second_run(played: Path) -> None:
    """
    A second run changes nothing.
    """
    again = play(played, **SITE)

    assert 0 == again.returncode, again.stdout + again.stderr
    assert "changed=0" in again.stdout


def test_nobody_may_sign_in(tmp_path: Path) -> None:
    """
    Without operators, SSH would be open to everyone or no one; that is rejected.
    """
    for operators in ([], ["0.0.0.0/0"], ["::/0"]):
        done = play(tmp_path, base_operators=operators)

        assert 0 != done.returncode
        assert "Set base_operators" in done.stdout


def test_site_that_lacks_something(tmp_path: Path) -> None:
    """
    A site with a missing value is rejected before anything is written.
    """
    done = play(tmp_path, compose_stack_site={"AMARRE_ENV": "production"})

    assert 0 != done.returncode
    assert "compose_stack_site lacks AMARRE_ALLOWED_EMAIL_DOMAINS" in done.stdout
    assert not (tmp_path / "root").exists()
