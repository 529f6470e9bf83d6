"""The OpenAPI document matches the contracts."""

import json
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from mesh.contract import openapi, policy
from mesh.render.openapi import render


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document of the installed contracts."""
    return openapi.document(policy.load())


def schema(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a component."""
    found: dict[str, Any] = document["components"]["schemas"][name]
    return found


def test_valid(document: dict[str, Any]) -> None:
    """
    The document is valid OpenAPI 3.1.
    """
    OpenAPIV31SpecValidator(document).validate()


def test_every_route(document: dict[str, Any]) -> None:
    """
    It has exactly the routes of the contracts.
    """
    routes = {(r.path, r.verb.lower()) for m in policy.load() for r in m.routes}
    assert routes == {(path, verb) for path, verbs in document["paths"].items() for verb in verbs}


def test_operation_ids_differ(document: dict[str, Any]) -> None:
    """
    Operation ids are unique.
    """
    ids = [op["operationId"] for verbs in document["paths"].values() for op in verbs.values()]
    assert len(ids) == len(set(ids))


def test_session(document: dict[str, Any]) -> None:
    """
    A call requires the session cookie exactly if its contract says so.
    """
    assert [{"session": []}] == document["paths"]["/api/v1/me"]["get"]["security"]
    assert [] == document["paths"]["/api/v1/auth/signup"]["post"]["security"]


def test_rules(document: dict[str, Any]) -> None:
    """
    Validation rules of the contract are constraints of request schemas.
    """
    body = schema(document, "SignUpRequest")
    assert ["email"] == body["required"]
    assert body["additionalProperties"] is False
    email = body["properties"]["email"]
    assert ("string", 1, 254) == (email["type"], email["minLength"], email["maxLength"])
    assert email["pattern"]
    assert ["", "fr", "en"] == body["properties"]["language"]["enum"]
    parameters = {
        p["name"]: p for p in document["paths"]["/api/v1/health/online"]["get"]["parameters"]
    }
    assert parameters["host"]["required"]
    assert 443 == parameters["port"]["schema"]["const"]
    assert (100, 30_000) == (
        parameters["timeoutMs"]["schema"]["minimum"],
        parameters["timeoutMs"]["schema"]["maximum"],
    )


def test_headers(document: dict[str, Any]) -> None:
    """
    A field that a header sets is a header parameter, unless only the gateway sets it.
    """
    parameters = document["paths"]["/api/v1/surveys/new"]["post"]["parameters"]
    assert [("Idempotency-Key", "header")] == [(p["name"], p["in"]) for p in parameters]
    assert "idempotencyKey" not in schema(document, "CreateRequestRequest")["properties"]
    assert "parameters" not in document["paths"]["/api/v1/auth/login"]["post"]


def test_secrets(document: dict[str, Any]) -> None:
    """
    Secrets are not part of responses.
    """
    assert {"loggedIn", "sessionExpiresAt"} == set(schema(document, "LogInResponse")["properties"])


def test_defaults_are_printed(document: dict[str, Any]) -> None:
    """
    Fields that are always printed are required in responses, others are not.
    """
    assert ["ok"] == schema(document, "TcpProbe")["required"]
    assert "url" in schema(document, "Step")["required"]
    assert "createdAt" not in schema(document, "Request")["required"]


def test_errors(document: dict[str, Any]) -> None:
    """
    Every error code is listed with its status: those implied by the call and those in its comment.
    """
    answers = document["paths"]["/api/v1/surveys/new"]["post"]["responses"]
    expected = "200 400 401 403 409 413 415 429 500 502 503 504"
    assert set(expected.split()) == set(answers)
    error = answers["409"]["content"]["application/json"]["schema"]["properties"]["error"]
    assert ["conflict", "idempotency_key_reused"] == error["allOf"][1]["properties"]["code"]["enum"]
    assert "Retry-After" in answers["429"]["headers"]


def test_data_beside_503(document: dict[str, Any]) -> None:
    """
    A status other than success comes with data, not with an error.
    """
    answers = document["paths"]["/api/v1/health/status"]["get"]["responses"]
    assert answers["200"] == answers["503"]


def test_comments(document: dict[str, Any]) -> None:
    """
    Every operation, parameter and property is described.
    """
    for verbs in document["paths"].values():
        for operation in verbs.values():
            assert operation["summary"]
            assert all(p["description"] for p in operation.get("parameters", ()))
    for name, component in document["components"]["schemas"].items():
        assert component.get("description"), name
        for field, found in component.get("properties", {}).items():
            assert found.get("description"), f"{name}.{field}"


def test_file_is_stable(document: dict[str, Any]) -> None:
    """
    The rendered file equals the document, deterministically.
    """
    assert render() == render()
    assert document == json.loads(render()["openapi.json"])
