"""
``python -m mesh.deploy.bom [licences]``: bill of materials of the images, CycloneDX or a list.

Generated from the images' lock files and the metadata of installed packages.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement

from mesh.render import docker

SPECIFICATION = "1.6"
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_OLD_NAMES = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
"""SPDX expressions for license classifiers, for packages without an expression."""


@dataclass(frozen=True)
class Package:
    """One package of the images."""

    name: str
    version: str
    licence: str
    """An SPDX expression if the package has one, else its license text; never empty."""
    hashes: tuple[str, ...]
    """SHA-256 of the files in the lock."""


class UnknownLicenceError(Exception):
    """A package does not declare its licence; the message names it."""


def packages() -> Iterator[Package]:
    """
    Yield the packages that images install on this version of Python, sorted by name.

    Raises:
        UnknownLicenceError: A package declares no licence.
    """
    locks = (lock.read_text().strip() for lock in docker.LOCKS.values())
    entries = {entry for lock in locks for entry in re.split(r"\n(?=\S)", lock)}
    for entry in sorted(entries):
        pinned = Requirement(entry.partition("\\")[0])
        if pinned.marker is None or pinned.marker.evaluate():
            version = str(pinned.specifier).removeprefix("==")
            yield Package(pinned.name, version, licence(pinned.name), tuple(_HASH.findall(entry)))


def licence(name: str) -> str:
    """
    Return the licence of an installed package.

    Raises:
        UnknownLicenceError: It declares none.
    """
    facts = metadata.metadata(name)
    if "License-Expression" in facts:
        return str(facts["License-Expression"])
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in facts.get_all("Classifier") or []
        if text.startswith("License :: ") and text != "License :: OSI Approved"
    ]
    named = sorted({_OLD_NAMES.get(text, text) for text in classifiers})
    free = (facts.get_all("License") or [""])[0].strip().splitlines()
    found = " OR ".join(named) or (free[0][:100] if free else "")
    if not found:
        raise UnknownLicenceError(f"{name} declares no licence; review it before shipping.")
    return found


def cyclonedx() -> dict[str, object]:
    """Return the bill of materials in CycloneDX."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "name": docker.PACKAGE,
                "version": docker.version(),
                "licenses": [{"license": {"id": "MIT"}}],
            }
        },
        "components": [
            {
                "type": "library",
                "name": package.name,
                "version": package.version,
                "purl": f"pkg:pypi/{package.name}@{package.version}",
                "licenses": [{"license": {"name": package.licence}}],
                "hashes": [{"alg": "SHA-256", "content": text} for text in package.hashes],
            }
            for package in packages()
        ],
    }


def main(arguments: list[str]) -> int:
    """Print the bill of materials, or the list of licences; return the exit status."""
    try:
        if arguments == ["licences"]:
            for package in packages():
                sys.stdout.write(f"{package.name:<48} {package.version:<12} {package.licence}\n")
        else:
            sys.stdout.write(json.dumps(cyclonedx(), indent=2) + "\n")
    except UnknownLicenceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
