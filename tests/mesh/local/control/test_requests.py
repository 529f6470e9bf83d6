"""Requests of direct calls: JSON that is not one is rejected with a sentence."""

import json
import os
from pathlib import Path

import pytest

from mesh.local.control.direct_call import CallRefusedError, prepare
from mesh.local.data_folder import DataFolder


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "is not valid"),
    ],
    ids=["list", "null", "deep", "incomplete"],
)
def test_request_that_is_not_one(tmp_path: Path, request_: str, message: str) -> None:
    """A request that is not a JSON object of the method is rejected before the call."""
    data_folder = DataFolder(tmp_path)
    running = {"processes": [{"pid": os.getpid()}], "grpc": {}}
    data_folder.ready.write_text(json.dumps(running))

    with pytest.raises(CallRefusedError, match=message):
        prepare(data_folder, "survey.ListRequests", request_, "gateway")
