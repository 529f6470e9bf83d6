"""The OpenAPI document as a file."""

import json

from mesh.contract import openapi, policy


def render() -> dict[str, str]:
    """Return the file ``openapi.json``; the same contracts give the same bytes."""
    document = openapi.document(policy.load())
    return {"openapi.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n"}
