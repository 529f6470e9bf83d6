"""Settings that stand in files, as containers get them."""

from pathlib import Path

import pytest

from mesh.chassis import config
from mesh.chassis.config import MeshSettings, SettingsError


def test_file_in_place_of_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A variable that is not set is read from the file of its name; one that is set wins.
    """
    (tmp_path / "amarre_instance").write_text("survey-2\n")
    (tmp_path / "amarre_namespace").write_text("elsewhere")
    monkeypatch.setenv("AMARRE_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("AMARRE_NAMESPACE", "here")

    settings = config.load(MeshSettings)

    assert "survey-2" == settings.instance
    assert "here" == settings.namespace


def test_missing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A folder that is not there is a fault at start, not a set of missing variables.
    """
    monkeypatch.setenv("AMARRE_SECRETS_DIR", str(tmp_path / "none"))

    with pytest.raises(SettingsError, match=r"AMARRE_SECRETS_DIR holds .*no such folder"):
        config.load(MeshSettings)
