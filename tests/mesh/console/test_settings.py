"""Settings of the console."""

import pytest
from pydantic import ValidationError

from mesh.console.settings import ConsoleSettings


@pytest.mark.parametrize("url", ["prometheus", "http://127.0.0.1:abc", "http://127.0.0.1:99999"])
def test_url(url: str) -> None:
    """A URL of a monitoring server or scrape target that cannot be requested is rejected."""
    assert ConsoleSettings(console_prometheus="", console_alertmanager="http://127.0.0.1:9093")
    for values in (
        {"console_prometheus": url},
        {"console_alertmanager": url},
        {"console_scrape": [{"process": "auth", "url": url}]},
    ):
        with pytest.raises(ValidationError, match="port"):
            ConsoleSettings.model_validate(values)
