"""Validation of settings."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from mesh.chassis.credentials.secret_files import SecretFileError
from mesh.chassis.server import StartError
from survey_svc.config import SurveySettings, read_token

GOOD: dict[str, Any] = {
    "survey_redcap_url": "https://redcap.example.org/api/",
    "survey_redcap_token_file": Path("token"),
}


class TestSettings:
    @pytest.mark.parametrize(
        "more",
        [
            {},
            {"env": "production"},
            {"survey_redcap_url": "http://127.0.0.1:3010/api/"},
            {"survey_store": "postgresql+asyncpg://u@h/d", "survey_cache": "redis://h/0"},
            {"survey_store": "rediss://h/0", "survey_cache": "rediss://h/1"},
        ],
    )
    def test_good(self, more: dict[str, Any]) -> None:
        """Every kind of store and cache is accepted."""
        assert SurveySettings(**GOOD | more)

    @pytest.mark.parametrize(
        ("more", "named"),
        [
            ({"survey_redcap_url": "https://redcap.example.org/api"}, "slash"),
            ({"survey_redcap_url": "https://token@redcap.example.org/api/"}, "slash"),
            ({"survey_redcap_url": "redcap"}, "http://HOST"),
            ({"survey_redcap_url": "http://127.0.0.1:abc/api/"}, "port"),
            ({"survey_redcap_url": "https://redcap.example.org\\x/api/"}, "http://HOST"),
            ({"survey_store": "redis://127.0.0.1:abc"}, "port"),
            ({"survey_store": "postgresql+asyncpg://u:p@h:99999/d"}, "port"),
            ({"survey_cache": "redis://127.0.0.1:abc"}, "port"),
            ({"survey_store": "mysql://h/d"}, "postgresql+asyncpg://"),
            ({"survey_cache": "disk"}, "redis"),
            (
                {"env": "production", "survey_redcap_url": "http://redcap.example.org/api/"},
                "https://",
            ),
        ],
    )
    def test_bad(self, more: dict[str, Any], named: str) -> None:
        """An invalid setting is rejected with the valid values."""
        with pytest.raises(ValidationError) as ei:
            SurveySettings(**GOOD | more)

        assert named in str(ei.value)


class TestToken:
    def test_good(self, tmp_path: Path) -> None:
        """A token is read without the line end, and its repr hides it."""
        file = tmp_path / "token"
        file.touch(0o600)
        file.write_text("0123456789ABCDEF0123456789abcdef\n")

        token = read_token(file)

        assert "0123456789ABCDEF0123456789abcdef" == token.get_secret_value()
        assert "0123" not in repr(token)

    @pytest.mark.parametrize("text", ["", "s3cr3t!", "x" * 64, "0123456789ABCDEF 123456789ABCDEF"])
    def test_bad(self, tmp_path: Path, text: str) -> None:
        """An invalid token is rejected with its file's name and is not shown."""
        file = tmp_path / "token"
        file.touch(0o600)
        file.write_text(text)

        with pytest.raises((StartError, SecretFileError)) as ei:
            read_token(file)

        assert str(file) in str(ei.value)
        assert not text or text not in str(ei.value)
