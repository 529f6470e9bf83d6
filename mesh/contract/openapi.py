"""
The contracts as one OpenAPI 3.1 document: routes, rules, comments and error reasons.

Everything comes from the policy model and the descriptors; schemas are in ``json_schema.py``.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from amarre.mesh.v1 import policy_pb2 as pb
from amarre.mesh.v1.file_chunk_pb2 import FileChunk
from google.protobuf.descriptor import FieldDescriptor

from mesh.contract import policy, reasons
from mesh.contract.json_schema import Schemas, header_of, is_required
from mesh.contract.policy import Mesh, Method, Route
from mesh.contract.reasons import Reason
from mesh.contract.wire import SESSION_COOKIE

NEXT_PAGE_FIELD = "next_page_token"
NEXT_PAGE_HEADER = "x-next-page-token"
"""The response header with the token of the next page of a list."""
_SET_BY_GATEWAY = frozenset({"X-Amarre-Client-Address", "User-Agent"})
_NAMED = re.compile(r"\b[A-Z][A-Z_]{3,}\b")
_ANY = ("INVALID_REQUEST", "RATE_LIMITED", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED")
"""Error reasons of every call."""
_FOR_BODIES = (
    "CSRF_FAILED",
    "PAYLOAD_TOO_LARGE",
    "INVALID_JSON",
    "UNSUPPORTED_CONTENT_ENCODING",
)
"""Additional error reasons of every call with a body."""
_NULL = {"type": "null"}


def document(mesh: Mesh) -> dict[str, Any]:
    """
    Return the document for every route of *mesh*.

    Source:
        OpenAPI 3.1.0.
    """
    schemas = Schemas()
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for method in mesh:
        for number, route in enumerate(method.routes):
            paths[route.path][route.verb.lower()] = _operation(method, route, number, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AMARRE",
            "version": "1",
            "description": "Requests for international mobility: sign-in, requests, data, health.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": s.name, "description": s.summary} for s in mesh.services],
        "paths": dict(paths),
        "components": {
            "schemas": schemas.components() | {"Error": _error_schema()},
            "securitySchemes": {
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": SESSION_COOKIE,
                    "description": "Opened by signing in.",
                }
            },
        },
    }


def _operation(method: Method, route: Route, number: int, schemas: Schemas) -> dict[str, Any]:
    text = policy.comment(method.descriptor.full_name)
    operation: dict[str, Any] = {
        "operationId": method.name if number == 0 else f"{method.name}{number + 1}",
        "tags": [method.service],
        "summary": _first_sentence(text),
        "description": text,
        "security": [{"session": []}] if method.needs_session else [],
        "x-rpc": method.path.removeprefix("/"),
        "responses": _answers(method, route, schemas) | _failures(method, route, text),
    }
    parameters = list(_parameters(method, route, schemas))
    if parameters:
        operation["parameters"] = parameters
    if route.body:
        fields = method.descriptor.input_type.fields
        operation["requestBody"] = {
            "required": any(is_required(f) for f in fields if not header_of(f)),
            "content": {
                "application/json": {"schema": schemas.request(method.descriptor.input_type)}
            },
        }
    return operation


def _parameters(method: Method, route: Route, schemas: Schemas) -> Iterator[dict[str, Any]]:
    for field in method.descriptor.input_type.fields:
        header = header_of(field)
        if header in _SET_BY_GATEWAY or (route.body and not header):
            continue
        schema = schemas.field(field, asked=True)
        yield {
            "name": header or field.json_name,
            "in": "header" if header else "query",
            "required": is_required(field),
            "description": schema.pop("description", ""),
            "schema": schema,
        }


def _answers(method: Method, route: Route, schemas: Schemas) -> dict[str, Any]:
    output = method.descriptor.output_type
    field = output.fields_by_name.get(route.response_body)
    if method.streams and field is not None and _is_file(field):
        return {
            "200": {
                "description": "The file. JSON is wrapped in the envelope, other formats are not.",
                "content": {
                    "application/json": {"schema": _envelope({})},
                    "*/*": {"schema": {"type": "string", "contentMediaType": "*/*"}},
                },
            }
        }
    if method.streams:
        return {
            "200": {
                "description": "Server-sent events; `data` of each is the object described by "
                "`x-event`. `event: end` ends the stream, `event: error` reports a failure.",
                "content": {
                    "text/event-stream": {
                        "schema": {"type": "string"},
                        "x-event": schemas.response(output),
                    }
                },
            }
        }
    data = schemas.field(field) if field is not None else schemas.response(output)
    data.pop("description", None)
    answer = {
        "description": policy.comment(output.full_name) or "The response.",
        "content": {"application/json": {"schema": _envelope(data)}},
    }
    if field is not None and NEXT_PAGE_FIELD in output.fields_by_name:
        token = schemas.field(output.fields_by_name[NEXT_PAGE_FIELD])
        description = token.pop("description", "")
        answer["headers"] = {NEXT_PAGE_HEADER: {"description": description, "schema": token}}
    return {str(status): answer for status in sorted({200, *_other_statuses(method)})}


def _other_statuses(method: Method) -> set[int]:
    """Return the HTTP statuses that the method's ``status_field`` can set."""
    field: FieldDescriptor | None = None
    inside: Any = method.descriptor.output_type
    for name in filter(None, method.rest.status_field.split(".")):
        field = inside.fields_by_name[name]
        inside = field.message_type
    values = field.enum_type.values if field is not None and field.enum_type else ()
    return {s for v in values if (s := v.GetOptions().Extensions[pb.answer_status])}


def _failures(method: Method, route: Route, text: str) -> dict[str, Any]:
    by_status: dict[int, list[Reason]] = defaultdict(list)
    for reason in _reasons(method, route, text):
        by_status[reason.http].append(reason)
    taken = _other_statuses(method)
    return {
        str(status): _failure(found)
        for status, found in sorted(by_status.items())
        if status not in taken
    }


def _reasons(method: Method, route: Route, text: str) -> list[Reason]:
    """Return the possible errors: those implied by the method, and those in its comment."""
    fields = method.descriptor.input_type.fields
    names = [*_ANY, *_NAMED.findall(text)]
    names += [field.GetOptions().Extensions[pb.violation] for field in fields]
    if method.needs_session:
        names.append("UNAUTHENTICATED")
    if method.roles:
        names.append("PERMISSION_DENIED")
    if route.body:
        names += _FOR_BODIES
        names.append(method.rest.wrong_content_type or "INVALID_CONTENT_TYPE")
        names.append(method.rest.invalid_body or "REQUEST_BODY_VALIDATION_ERROR")
    found = (reasons.find(method.service, name) for name in names)
    return list(dict.fromkeys(reason for reason in found if reason is not None))


def _failure(found: list[Reason]) -> dict[str, Any]:
    codes = sorted({reason.code for reason in found})
    lines = [f"- `{r.code}`: {_meaning(r)}" for r in sorted(found, key=lambda r: r.code)]
    answer: dict[str, Any] = {
        "description": "\n".join(lines),
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "data": _NULL,
                        "error": {
                            "allOf": [
                                {"$ref": "#/components/schemas/Error"},
                                {"properties": {"code": {"enum": codes}}},
                            ]
                        },
                    },
                    "required": ["data", "error"],
                }
            }
        },
    }
    if found[0].http in {429, 503}:
        answer["headers"] = {
            "Retry-After": {
                "description": "Seconds to wait before a retry.",
                "schema": {"type": "integer", "minimum": 1},
            }
        }
    return answer


def _meaning(reason: Reason) -> str:
    area = reason.domain.partition(".")[0]
    name = f"amarre.{area}.v1.ErrorReason.{reasons.PREFIX}{reason.name}"
    return policy.comment(name).replace("\n", " ")


def _error_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "The error.",
        "properties": {
            "code": {"type": "string", "description": "Stable error code for programs."},
            "message": {"type": "string", "description": "One sentence for developers."},
            "cause": {"type": "string", "description": "The cause, if known."},
            "details": {
                "type": "object",
                "description": "Details of the error.",
                "properties": {
                    "violations": {
                        "type": "array",
                        "description": "Each violated rule.",
                        "items": {
                            "type": "object",
                            "properties": {
                                "field": {"type": "string"},
                                "description": {"type": "string"},
                            },
                            "required": ["field", "description"],
                        },
                    }
                },
            },
        },
        "required": ["code", "message"],
    }


def _envelope(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"data": data, "error": _NULL},
        "required": ["data", "error"],
    }


def _is_file(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return kind is not None and kind.full_name == FileChunk.DESCRIPTOR.full_name


def _first_sentence(text: str) -> str:
    paragraph = text.split("\n\n")[0].replace("\n", " ")
    return paragraph.split(". ")[0].rstrip(".")
