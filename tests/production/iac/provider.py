"""The OpenStack provider, built from its Go module, as a mirror for ``terraform init``."""

import functools
import os
import platform
import shutil
import subprocess
from pathlib import Path

from tests.production.iac.host import STATE

NAME = "terraform-provider-openstack"
VERSION = "3.4.0"
MODULE = f"github.com/{NAME}/{NAME}/v3@v{VERSION}"
"""Go holds the module and what it needs against its checksum database."""
BUILD_SECONDS = 1800


def why_not() -> str:
    """Return why Terraform cannot run here, in one sentence; empty if it can."""
    if shutil.which("terraform") is None:
        return "Terraform is not installed."
    if shutil.which("go") is None and not _program().is_file():
        return "The provider is built from its Go module, and Go is not installed."
    return ""


def _program() -> Path:
    named = os.environ.get("AMARRE_PROGRAMS")
    return next(
        (path for path in [Path(named) / NAME] if path.is_file()) if named else iter(()),
        STATE / "provider" / NAME,
    )


@functools.cache
def configuration() -> Path:
    """Return Terraform's configuration file, with the mirror; build what is missing."""
    program = _program()
    if not program.is_file():
        subprocess.run(
            ["go", "install", MODULE],
            env=os.environ | {"GOBIN": str(program.parent), "GOFLAGS": ""},
            check=True,
            timeout=BUILD_SECONDS,
        )
    mirror = STATE / "mirror"
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    place = mirror / f"registry.terraform.io/{NAME}/openstack/{VERSION}/linux_{machine}"
    place.mkdir(parents=True, exist_ok=True)
    link = place / f"{NAME}_v{VERSION}"
    link.unlink(missing_ok=True)
    shutil.copy2(program, link)
    file = STATE / "terraform.rc"
    file.write_text(
        "disable_checkpoint = true\nprovider_installation {\n  filesystem_mirror {\n"
        f'    path    = "{mirror}"\n    include = ["registry.terraform.io/*/*"]\n  }}\n}}\n'
    )
    return file
