"""The data folder of a local mesh."""

import os
from pathlib import Path

import pytest

from mesh.local.data_folder import DataFolder, DataFolderError
from mesh.local.pki.certificate_authority import CertificateAuthority
from tests.mesh.local.conftest import fill

SECRETS = ("redcap-token", "redcap-super-token", "console-token", "pseudonym-key")


def test_empty_secrets_are_created_again(tmp_path: Path) -> None:
    """Secrets that are empty, as after a crash, are created again; others are kept."""
    data_folder = DataFolder(tmp_path / "data")
    data_folder.prepare()
    before = {name: data_folder.read_secret(name) for name in SECRETS}
    data_folder.secret("console-token").write_text("")

    data_folder.prepare()

    after = {name: data_folder.read_secret(name) for name in SECRETS}
    assert all(after.values())
    assert {"console-token"} == {name for name in SECRETS if before[name] != after[name]}


@pytest.mark.parametrize("blocks", range(len(SECRETS) + 2))
def test_start_after_one_on_a_full_disk(small_disk: Path, blocks: int) -> None:
    """
    A start that failed because the disk was full names the file, and leaves nothing that prevents
    the next one, wherever it failed.
    """
    data_folder = DataFolder(small_disk / "data")
    data_folder.make_folders()
    filler = fill(small_disk)
    os.truncate(filler, filler.stat().st_size - blocks * 4096)
    with pytest.raises((OSError, DataFolderError), match=f"{small_disk}"):
        prepare(data_folder)
    filler.unlink()

    prepare(data_folder)

    assert all(data_folder.read_secret(name) for name in SECRETS)


def prepare(data_folder: DataFolder) -> None:
    """Create the secrets and the authority of *data_folder*."""
    data_folder.prepare()
    CertificateAuthority.load_or_create(data_folder.ca)
