"""Service configs for clients of other teams say what the contracts say."""

import json

import pytest

from mesh.contract import policy
from mesh.contract.policy import Method
from mesh.render import grpc

FILES = {name: json.loads(text) for name, text in grpc.render().items()}


@pytest.mark.parametrize("method", [pytest.param(m, id=m.short_name) for m in policy.load()])
def test_timeout_and_retries(method: Method) -> None:
    """
    Each method has its deadline as timeout, and is retried only where the contract allows it.

    Source:
        gRPC, service_config.proto: MethodConfig.timeout, MethodConfig.retry_policy.
    """
    (config,) = [
        config
        for config in FILES[f"{method.service}.json"]["methodConfig"]
        if method.name in {name["method"] for name in config["name"]}
    ]

    assert f"{method.deadline.total_seconds():g}s" == config["timeout"]
    assert method.may_retry is ("retryPolicy" in config)
