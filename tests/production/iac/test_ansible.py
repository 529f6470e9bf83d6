"""The playbooks on a Debian host with systemd, in the order of their README."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mesh.deploy.compose_secrets import FROM_PEOPLE
from tests.production.iac.host import (
    ADDRESS,
    FOREIGNER,
    OPERATOR,
    PLAYBOOKS,
    VOLUME,
    Host,
    NoHostError,
    documented_move,
    why_not,
)

FOLDER = "/opt/amarre/mesh/deploy/compose"
DATA, MOUNT = "/var/lib/docker/volumes", "var-lib-docker-volumes.mount"
SITE_ENV = (PLAYBOOKS.parent / "compose/site.env.example").read_text()
RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
UP = "compose --env-file site.env up --detach --wait --remove-orphans"

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


def variables(version: str, **more: Any) -> dict[str, Any]:
    """Return the contents of site-vars.yml."""
    site = dict(re.findall(r"(?m)^(AMARRE_\w+)='?(.*?)'?$", SITE_ENV))
    site["AMARRE_VERSION"] = version
    return {"backups_recipient": RECIPIENT, "compose_stack_site": site, **more}


def version(host: Host) -> str:
    """Return the version in the host's settings."""
    return host.run(f"sed -n 's/^AMARRE_VERSION=//p' {FOLDER}/site.env").strip().strip("'")


def compose(host: Host) -> list[str]:
    """Return the calls of Compose since the last time, without its folder and version."""
    calls = [line.partition(" ")[2] for line in host.calls()]
    return [call for call in calls if call.startswith("compose --")]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A bare host."""
    with ExitStack() as stack:
        try:
            made = stack.enter_context(Host(tmp_path_factory.mktemp("host")))
        except NoHostError as error:
            pytest.skip(str(error))
        yield made


# The tests below are steps: each starts where the one before it ended.


def test_refused_sites(host: Host) -> None:
    """
    A site without a version is rejected by name, and nothing of the bare host changes.
    """
    lacking = variables("0.1.0")
    del lacking["compose_stack_site"]["AMARRE_VERSION"]
    refused = host.play("site.yml", lacking)

    assert refused.status != 0
    assert "compose_stack_site lacks AMARRE_VERSION" in refused.output
    assert 0 == refused.changed


def test_volume_hides_no_data(host: Host) -> None:
    """
    The volume is not mounted over data on the system disk; the README describes how to move it.
    """
    host.run(f"mkdir -p {DATA}/amarre_postgres; echo kept >{DATA}/amarre_postgres/file")
    refused = host.play("site.yml", variables("0.1.0"))
    assert refused.status != 0
    assert f"{DATA} contains data on the system disk" in refused.output
    assert 0 == refused.changed

    host.run(f"apt-get -q update\nDEVICE={VOLUME}\n{documented_move()}")


def test_first_run_names_what_people_must_add(host: Host) -> None:
    """
    The first run prepares everything, starts nothing and lists each missing secret.
    """
    first = host.play("site.yml", variables("0.1.0"))

    assert first.status != 0
    assert [] == [name for name in FROM_PEOPLE if f"{FOLDER}/secrets/{name}" not in first.output]
    assert [] == compose(host)


def test_volume(host: Host) -> None:
    """
    Docker volumes are on the data volume, and Docker does not run without it.
    """
    assert "/dev/vdb xfs" == host.run(f"findmnt -no SOURCE,FSTYPE --mountpoint {DATA}").strip()
    assert ["kept"] == host.run(f"cat {DATA}/amarre_postgres/file").split()
    assert "701" == host.run(f"stat -c %a {DATA}").strip()

    host.run(f"systemctl stop docker.socket {MOUNT}")
    assert "inactive" == host.run("systemctl is-active docker", check=False).strip()
    host.run("systemctl start docker")
    assert ["amarre_postgres"] == host.run(f"ls {DATA}").split()


def test_failed_run_is_repaired(host: Host) -> None:
    """
    A run whose containers do not become healthy fails; running it again starts them. The first
    one formats and mounts a blank device, and starts the engine, which was stopped.
    """
    host.run(f"systemctl stop docker.socket docker {MOUNT}; wipefs --quiet --all {VOLUME}")
    names = [name for name in FROM_PEOPLE if not name.startswith("edge/")]
    host.run(
        f"cd {FOLDER}/secrets; mkdir -p edge alertmanager; touch /srv/fails\n"
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 9 "
        "-subj /CN=host -keyout edge/tls.key -out edge/tls.crt 2>/dev/null\n"
        + "\n".join(f"echo https://example.org >{name}" for name in names)
    )
    failed = host.play("site.yml", variables("0.1.0"))
    assert failed.status != 0
    assert "a container is unhealthy" in failed.output
    assert "" == host.run(f"mountpoint --quiet {DATA}; ls {DATA}")
    assert "active" == host.run("systemctl is-active docker").strip()

    host.run("rm /srv/fails; : >/dev/shm/compose.log")
    repaired = host.play("site.yml", variables("0.1.0"))

    assert 0 == repaired.status, repaired.output[-3000:]
    assert UP in compose(host)
    assert "active" == host.run("systemctl is-active amarre").strip()


def test_second_run_changes_nothing(host: Host) -> None:
    """
    A run on a converged host reports no changes.
    """
    again = host.play("site.yml", variables("0.1.0"))

    assert (0, 0) == (again.status, again.changed), again.output[-3000:]


def test_settings_of_the_engine_are_in_force(host: Host) -> None:
    """
    The engine was started after its settings were written.
    """
    started = 'date -d "$(systemctl show docker -p ActiveEnterTimestamp --value)" +%s'
    engine, settings = host.run(f"{started}; stat -c %Y /etc/docker/daemon.json").split()

    assert int(engine) >= int(settings)


def test_modes(host: Host) -> None:
    """
    System folders keep their modes, and secrets are readable only by their users.
    """
    assert ["755", "755"] == host.run("stat -c %a /etc/systemd/system /usr/local/sbin").split()
    found = host.run(f"cd {FOLDER}/secrets; stat -c '%a %u %n' postgres-password redis.conf")
    assert ["400 70 postgres-password", "400 999 redis.conf"] == found.splitlines()
    assert ["600"] == host.run("stat -c %a /etc/amarre/backup.env").split()


def test_no_unit_fails(host: Host) -> None:
    """
    No unit of the roles fails, and each is valid.
    """
    units = "nftables docker amarre prometheus-node-exporter amarre-backup.timer ssh"
    assert {"active"} == set(host.run(f"systemctl is-active {units}").split())
    host.run("systemd-analyze verify /etc/systemd/system/amarre*")


def test_ssh_from_operators_only(host: Host) -> None:
    """
    Operators log in by key; nobody else reaches SSH, and passwords are rejected.
    """
    assert "signed in" in host.ssh(OPERATOR)

    host.run(f"ip route replace {FOREIGNER} via {OPERATOR}")
    assert "timed out" in host.ssh(FOREIGNER)
    assert "passwordauthentication no" in host.run("sshd -T").splitlines()


def test_firewall(host: Host) -> None:
    """
    Node exporter responds only on the inner network; a port that no role opens is dropped.
    """
    curl = ("curl", "--silent", "--max-time", "3")
    metrics = host.outside(*curl, f"http://{ADDRESS}:9100/metrics")
    assert "amarre_backup_last_success_timestamp_seconds" in metrics

    host.run("(python3 -m http.server 3300 >/dev/null 2>&1 & echo $! >/run/served)")
    host.run("until (exec 3<>/dev/tcp/127.0.0.1/3300) 2>/dev/null; do sleep 0.1; done")
    assert "" == host.outside(*curl, f"http://{ADDRESS}:3300/", check=False)
    interface = (*curl, "--interface", FOREIGNER)
    assert "" == host.outside(*interface, f"http://{ADDRESS}:9100/metrics", check=False)
    host.run("kill $(cat /run/served)")


def test_foreign_rules_stay(host: Host) -> None:
    """
    A restart of the firewall, as in a package upgrade, keeps other programs' rules.
    """
    host.run("nft add table ip others; systemctl restart nftables")

    assert {"table ip others", "table inet amarre"} <= set(host.run("nft list tables").splitlines())
    host.run("nft delete table ip others")


def test_engine_restarted(host: Host) -> None:
    """
    A restart of the engine stops no containers, and the unit of the mesh is unaffected.
    """
    host.calls()
    host.run("systemctl stop docker.socket docker; systemctl start docker")

    assert "active" == host.run("systemctl is-active amarre").strip()
    assert [] == [call for call in compose(host) if " stop" in call]


def test_upgrade(host: Host) -> None:
    """
    The upgrade backs up first, then starts the new version; a failed one is repaired by a rerun.
    """
    host.run("rm -f /var/backups/amarre/*; touch /srv/fails; : >/dev/shm/compose.log")
    failed = host.play("upgrade.yml", variables("0.2.0"))
    assert failed.status != 0
    assert 1 == len(host.run("ls /var/backups/amarre").split())

    host.run("rm /srv/fails")
    upgraded = host.play("upgrade.yml", variables("0.2.0"))

    assert 0 == upgraded.status, upgraded.output[-3000:]
    assert "0.2.0" == version(host)
    calls = compose(host)
    backup = next(n for n, call in enumerate(calls) if "pg_dump" in call)
    assert backup < calls.index(UP)
    assert calls[-1] == UP


def test_rollback(host: Host) -> None:
    """
    The rollback reverts the schema with the running version, then starts the previous one.
    """
    refused = host.play("rollback.yml", variables("0.1.0"))
    assert refused.status != 0
    assert "rollback_revision" in refused.output
    assert "0.2.0" == version(host)

    host.calls()
    done = host.play("rollback.yml", variables("0.1.0", rollback_revision="0005"))

    assert 0 == done.status, done.output[-3000:]
    calls = compose(host)
    back = next(n for n, call in enumerate(calls) if call.endswith("auth_svc.migrations 0005"))
    assert any("pg_dump" in call for call in calls[:back])
    assert back < calls.index(UP)
    assert "0.1.0" == version(host)
