"""The official Node SDK completes the whole sign-in against the sandbox."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.sandbox.appwrite.conftest import KEY, PROJECT, Appwrite

SCRIPT = Path(__file__).with_name("whole_sign_in.mjs")
FOLDER = Path(__file__).with_name("node")


@pytest.mark.skipif(
    shutil.which("node") is None or not (FOLDER / "node_modules").is_dir(),
    reason=f"needs Node and npm, and `npm ci` in {FOLDER.name}, which `make test` runs",
)
def test_whole_sign_in(appwrite: Appwrite) -> None:
    """Every response, errors included, has the shape that the SDK expects."""
    command = ["node", str(SCRIPT), str(FOLDER), appwrite.endpoint, PROJECT, KEY]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert (
        ""
        == ended.stderr.replace(
            "Warning: The response format is newer than the server.", ""
        ).strip()
    )
    assert {
        "provider": "magic-url",
        "email": "ada@example.org",
        "verified": True,
        "sameSession": True,
        "sessions": 1,
        "found": "ada@example.org",
        "name": "Bob",
        "equal": 1,
        "search": ["bob1"],
        "prefs": {"theme": "dark"},
        "token": "token",
        "left": 1,
        "labels": ["approver"],
        "replay": [401, "user_invalid_token"],
        "after": [401, "general_unauthorized_scope"],
    } == json.loads(ended.stdout)
