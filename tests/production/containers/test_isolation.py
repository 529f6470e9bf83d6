"""What a container can read, reach and use."""

import json
import sys

from mesh.render.readers import READERS, owners
from tests.production.containers.stack import Stack

MEMORY_PERCENT = 90
REFUSED = {"''", "'SSLError'", "'ConnectionResetError'", "'BrokenPipeError'"}
FOREIGN = """
import socket, ssl, sys

def outcome(connect):
    try:
        return connect()
    except (OSError, ssl.SSLError) as fault:
        return type(fault).__name__

def plain(address):
    with socket.create_connection(address, 3) as bound:
        bound.sendall(b"GET / HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n")
        return bound.recv(100).decode("latin-1")

def without_certificate(address):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with context.wrap_socket(socket.create_connection(address, 3)) as bound:
        bound.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n")
        return bound.recv(100).hex()

for name, port in (("survey-envoy", 3001), ("auth-envoy", 3002), ("health-envoy", 3003)):
    for way in (plain, without_certificate):
        print(name, way.__name__, repr(outcome(lambda: way((name, port)))))
for name in ("postgres", "redis", "survey", "auth"):
    print(name, "resolved", repr(outcome(lambda: socket.gethostbyname(name))))
"""


def test_secrets(stack: Stack) -> None:
    """
    Each user in the table can read only its own secrets, as seen from inside a container.
    """
    image = stack.containers()["authority"]["Config"]["Image"]
    # By name: the folder itself cannot be listed.
    script = (
        "import os, sys\n"
        "print(*[name for name in sys.argv[1:] if os.access(f'/s/{name}', os.R_OK)])"
    )
    for reader in {reader.user: reader for reader in READERS.values() if reader.uid}.values():
        expected = {name for name, owner in owners().items() if owner.user == reader.user}
        found = stack.run(
            [
                *("docker", "run", "--rm", "--network", "none", "--user", reader.user),
                *("--cap-drop", "ALL", "--volume", f"{stack.folder}/secrets:/s:ro"),
                *("--entrypoint", "python", image, "-c", script, *owners()),
            ]
        )
        assert expected == set(found.split()), reader.user


def test_users(stack: Stack) -> None:
    """
    No long-running container runs as root, has a capability or a writable root file system.
    """
    for name, one in stack.containers().items():
        if name == "volume-owners":
            continue
        assert not one["Config"]["User"].startswith("0"), name
        assert one["HostConfig"]["ReadonlyRootfs"], name
        assert ["ALL"] == one["HostConfig"]["CapDrop"], name
        assert not one["HostConfig"]["CapAdd"], name
        assert not one["State"]["OOMKilled"], name


def test_foreign_container(stack: Stack) -> None:
    """
    A third-party container on the mesh's network gets no response without a certificate of the
    mesh, and cannot reach databases or workloads.
    """
    image = stack.containers()["authority"]["Config"]["Image"]
    found = stack.run(
        [
            *("docker", "run", "--rm", "--network", "amarre_mesh", "--cap-drop", "ALL"),
            *("--entrypoint", "python", image, "-c", FOREIGN),
        ]
    )
    lines = [line.split(" ", 2) for line in found.splitlines()]

    assert 10 == len(lines), found
    for name, way, outcome in lines:
        if way == "resolved":
            assert "'gaierror'" == outcome, name
        else:
            # An alert, a reset or a close: nothing that HTTP would be.
            assert "HTTP" not in outcome, (name, way)
            assert outcome in REFUSED or (way == "plain" and outcome.startswith("'\\x15\\x03")), (
                name,
                way,
                outcome,
            )


def test_memory(stack: Stack) -> None:
    """
    After use, each container stays below nine tenths of its memory limit.
    """
    lines = stack.run(["docker", "stats", "--no-stream", "--format", "{{json .}}"]).splitlines()
    used = {entry["Name"]: float(entry["MemPerc"].rstrip("%")) for entry in map(json.loads, lines)}
    sys.stdout.write(f"memory, % of the limit: {used}\n")

    containers = stack.containers()
    assert {one["Name"].lstrip("/") for one in containers.values() if one["State"]["Running"]} == {
        name for name in used if name.startswith("amarre-")
    }
    assert all(one["HostConfig"]["Memory"] for one in containers.values())
    assert not {name for name, percent in used.items() if not 0 < percent < MEMORY_PERCENT}
