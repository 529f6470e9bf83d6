"""Terraform: checks without a provider, which detect errors."""

import shutil
from pathlib import Path

import pytest

from mesh.deploy import terraform_check as check
from mesh.deploy.check import DEPLOY

ROOT = DEPLOY / "terraform"
needs_terraform = pytest.mark.skipif(
    shutil.which("terraform") is None, reason="terraform is not installed"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the modules that a test may modify."""
    copied = tmp_path / "terraform"
    shutil.copytree(ROOT, copied)
    return copied


def damage(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@needs_terraform
def test_no_fault() -> None:
    """
    Format, the core module's own tests and every call between modules are valid.
    """
    assert [] == check.faults(ROOT)


@needs_terraform
def test_core_that_opens_ssh(root: Path) -> None:
    """
    A core module that opens SSH to the world fails its own tests.
    """
    damage(root / "core" / "main.tf", "from = pair[1]", 'from = "0.0.0.0/0"')

    assert any("SSH is open to operators only" in fault for fault in check.faults(root))


@pytest.mark.parametrize(
    ("path", "old", "new", "said"),
    [
        (
            "environments/staging/main.tf",
            "  name_servers     = var.name_servers\n",
            "",
            "environments/staging: module machines: openstack requires the variable name_servers",
        ),
        (
            "environments/staging/main.tf",
            "module.core.rules",
            "module.core.firewall",
            "uses module.core.firewall, which core does not output",
        ),
        (
            "environments/production/main.tf",
            "../../kubernetes-magnum",
            "../../kubernetes",
            "module cluster: there is no module at ../../kubernetes",
        ),
        (
            "openstack/main.tf",
            "openstack_networking_network_v2.private.id",
            "openstack_networking_network_v2.inner.id",
            "openstack: uses openstack_networking_network_v2.inner, which is not declared",
        ),
        ("openstack/main.tf", "var.zones", "var.regions", "openstack: uses var.regions"),
        (
            "openstack/main.tf",
            'resource "open',
            "resource open {{",
            "main.tf in openstack: not HCL",
        ),
    ],
)
def test_found(root: Path, path: str, old: str, new: str, said: str) -> None:
    """
    Modules with mismatching interfaces are detected, with the location.
    """
    damage(root / path, old, new)

    assert any(said in fault for fault in check.faults(root))
