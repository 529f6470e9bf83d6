"""The firewall of the Ansible roles, in a network namespace of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jinja2
import pytest
import yaml

from mesh.deploy.check import DEPLOY

BASE = DEPLOY / "ansible/roles/base"
LIMIT = 20
CLIENTS = """
import json, pathlib, socket, subprocess, sys

def run(*command):
    subprocess.run(command, check=True)

run("ip", "link", "set", "lo", "up")
run("ip", "address", "add", "2001:db8::1/128", "dev", "lo")
run("ip", "address", "add", "2001:db8::2/128", "dev", "lo")
run("nft", "--file", sys.argv[1])
server = socket.create_server(("::", 443), family=socket.AF_INET6, dualstack_ipv6=True, backlog=500)

def opened(source, target, most):
    found = []
    while len(found) < most:
        try:
            found.append(socket.create_connection((target, 443), 0.5, (source, 0)))
        except TimeoutError:
            break
    return found

greedy = opened("127.0.0.5", "127.0.0.1", 30)
counts = [len(greedy), len(opened("127.0.0.6", "127.0.0.1", 3))]
for one in greedy:
    one.close()
    server.accept()[0].close()
site = opened("2001:db8::1", "::1", 15) + opened("2001:db8::2", "::1", 15)
print(json.dumps([*counts, len(site)]))
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("nft") or not shutil.which("ip"),
    reason="needs root, nft and ip",
)
def test_connections_per_client(tmp_path: Path) -> None:
    """
    One address, or one IPv6 /64, has a limit of connections; others still connect.

    Source:
        nft(8), "CONNECTION LIMIT" and "SET STATEMENT".
    """
    template = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined).from_string(
        (BASE / "templates/nftables.conf.j2").read_text()
    )
    defaults = yaml.safe_load((BASE / "defaults/main.yml").read_text())
    rules, clients = tmp_path / "nftables.conf", tmp_path / "clients.py"
    rules.write_text(
        template.render(defaults | {"base_connections_per_client": LIMIT, "ansible_managed": ""})
    )
    clients.write_text(CLIENTS)

    done = subprocess.run(
        ["unshare", "--net", sys.executable, str(clients), str(rules)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert 0 == done.returncode, done.stderr
    assert [LIMIT, 3, LIMIT] == json.loads(done.stdout)
