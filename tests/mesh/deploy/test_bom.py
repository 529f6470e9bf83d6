"""The bill of materials lists every package in the images with its licence."""

import json
from pathlib import Path

import pytest

from mesh.deploy import bom
from mesh.render import docker

PACKAGES = list(bom.packages())
GIVES_BACK = {"fpdf2": "LGPL-3.0-only", "certifi": "MPL-2.0"}
"""Licences that ask something in return for changes; we change neither."""


def test_everything_in_the_lock() -> None:
    """
    Every package in the images is listed with the version and the hashes of the lock.
    """
    lock = "\n".join(lock.read_text() for lock in docker.LOCKS.values())

    unconditional = {line for line in lock.splitlines() if "==" in line and ";" not in line}
    assert {line.partition("==")[0] for line in unconditional} <= {p.name for p in PACKAGES}
    for package in PACKAGES:
        assert f"{package.name}=={package.version}" in lock
        assert package.hashes


def test_no_strong_copyleft() -> None:
    """
    No licence is strongly copyleft; weak copyleft licences are listed by name.
    """
    found = {p.name: p.licence for p in PACKAGES if "GPL" in p.licence or "MPL" in p.licence}

    assert GIVES_BACK == found


def test_cyclonedx(capsys: pytest.CaptureFixture[str]) -> None:
    """
    The command prints one CycloneDX document with a component per package.
    """
    assert 0 == bom.main([])
    document = json.loads(capsys.readouterr().out)

    assert ("CycloneDX", "1.6") == (document["bomFormat"], document["specVersion"])
    assert [f"pkg:pypi/{p.name}@{p.version}" for p in PACKAGES] == [
        c["purl"] for c in document["components"]
    ]


def test_unknown_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A package without a licence is rejected by name.
    """
    folder = tmp_path / "silent-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: silent\nVersion: 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(bom.UnknownLicenceError, match="silent declares no licence"):
        bom.licence("silent")
