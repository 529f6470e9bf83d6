"""Settings of the health service."""

import json

import pytest

from health_svc.config import HealthSettings
from mesh.chassis import config


class TestSettings:
    def test_hosts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Hosts are comma-separated, in any case, with port 443 or none."""
        monkeypatch.setenv("AMARRE_HEALTH_ALLOWED_HOSTS", "A.example.org:443, b.example.org.,")

        assert {"a.example.org", "b.example.org"} == config.load(
            HealthSettings
        ).health_allowed_hosts

    @pytest.mark.parametrize("value", ["a.org:8443", "https://a.org", "*.org", "10.0.0.0/8"])
    def test_no_hosts(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        """Other ports, URLs, patterns and networks are rejected with the name of the variable."""
        monkeypatch.setenv("AMARRE_HEALTH_ALLOWED_HOSTS", value)

        with pytest.raises(config.SettingsError, match="AMARRE_HEALTH_ALLOWED_HOSTS"):
            config.load(HealthSettings)

    @pytest.mark.parametrize("url", ["localhost:80", "http://localhost:abc/", "http://:80/"])
    def test_backends(self, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
        """A backend needs a URL."""
        monkeypatch.setenv("AMARRE_HEALTH_BACKENDS", json.dumps({"redcap": url}))

        with pytest.raises(config.SettingsError, match="AMARRE_HEALTH_BACKENDS"):
            config.load(HealthSettings)

    def test_private_in_production(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Production does not probe private addresses."""
        monkeypatch.setenv("AMARRE_ENV", "production")
        monkeypatch.setenv("AMARRE_HEALTH_ALLOW_PRIVATE", "true")

        with pytest.raises(config.SettingsError, match="AMARRE_HEALTH_ALLOW_PRIVATE"):
            config.load(HealthSettings)
