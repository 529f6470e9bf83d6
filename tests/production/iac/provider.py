"""The OpenStack provider, built from its Go module, as a mirror for ``terraform init``."""

import functools
import platform
import shutil
from pathlib import Path

from tests.production.iac.host import STATE
from tests.production.programs import PINS, TERRAFORM, find, path

NAME = "terraform-provider-openstack"


@functools.cache
def configuration() -> Path:
    """
    Return Terraform's configuration file, with the mirror; build what is missing.

    Raises:
        MissingProgramsError: The provider cannot be built.
    """
    find(TERRAFORM, build=True)
    mirror = STATE / "mirror"
    (module,) = PINS["programs"][TERRAFORM]
    version = PINS["modules"][module]["version"].removeprefix("v")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    place = mirror / f"registry.terraform.io/{NAME}/openstack/{version}/linux_{machine}"
    place.mkdir(parents=True, exist_ok=True)
    link = place / f"{NAME}_v{version}"
    link.unlink(missing_ok=True)
    shutil.copy2(path(NAME), link)
    file = STATE / "terraform.rc"
    file.write_text(
        "disable_checkpoint = true\nprovider_installation {\n  filesystem_mirror {\n"
        f'    path    = "{mirror}"\n    include = ["registry.terraform.io/*/*"]\n  }}\n}}\n'
    )
    return file
