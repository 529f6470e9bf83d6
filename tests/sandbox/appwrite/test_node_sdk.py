"""The official Node SDK drives the stand-in through the whole sign-in."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.sandbox.appwrite.conftest import KEY, PROJECT, Appwrite

SCRIPT = Path(__file__).with_name("whole_sign_in.mjs")
FOLDER = os.environ.get("AMARRE_NODE_SDK", "")


@pytest.mark.skipif(
    not FOLDER or shutil.which("node") is None,
    reason="needs Node, and AMARRE_NODE_SDK=DIR after `npm install --prefix DIR node-appwrite@27`",
)
def test_whole_sign_in(appwrite: Appwrite) -> None:
    """
    Every answer fits what the SDK expects, refusals included.
    """
    command = ["node", str(SCRIPT), str(Path(FOLDER).absolute()), appwrite.endpoint, PROJECT, KEY]
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
        "labels": ["approver"],
        "replay": [401, "user_invalid_token"],
        "after": [401, "general_unauthorized_scope"],
    } == json.loads(ended.stdout)
