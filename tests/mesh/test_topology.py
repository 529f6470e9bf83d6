"""The topology."""

import re
from itertools import chain
from pathlib import Path

from mesh import topology
from mesh.contract import policy
from mesh.contract.faults import WORKLOADS
from mesh.render.deployment import ACCOUNTS

PAGE = Path(__file__).parents[2] / "docs/reference/rendered/ports.md"


def test_no_two_processes_share_a_port() -> None:
    """
    Every port offset belongs to one process, or to replicas and canaries.
    """
    spare = chain(*topology.REPLICAS, *topology.REPLICA_METRICS, *topology.REPLICA_ADMIN)
    offsets = [*topology.declared_ports(), *spare]

    assert len(offsets) == len(set(offsets))


def test_needs_are_processes() -> None:
    """
    Everything that a process needs exists.
    """
    names = {process.name for process in topology.PROCESSES}

    for process in topology.PROCESSES:
        assert set(process.needs) <= names


def test_identities_are_those_of_the_contract() -> None:
    """
    Every service of the contracts has a process with its identity, and there are no other
    identities.
    """
    identities = {p.identity for p in topology.PROCESSES if p.identity}

    assert {service.name for service in policy.load().services} <= identities
    assert WORKLOADS - set(ACCOUNTS) == identities


def test_page_of_ports() -> None:
    """
    docs/reference/rendered/ports.md lists the port of every process.
    """
    rows = {
        int(match[1]): match[2]
        for match in re.finditer(r"^\| (\d+) \| (\w+) \|", PAGE.read_text(), re.MULTILINE)
    }

    for process in topology.PROCESSES:
        assert process.name == rows[process.port]
