"""API explorer: every operation of the OpenAPI document, with forms to try it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.pages.site import Site
from gateway.rest.envelope import encode


@dataclass(frozen=True)
class Operation:
    """One operation as shown on the page."""

    verb: str
    path: str
    tag: str
    summary: str
    notes: tuple[str, ...]
    """The paragraphs of the description after the first."""
    needs_session: bool
    streams: bool
    parameters: tuple[Mapping[str, Any], ...]
    body: str
    """An example of the JSON body; empty when there is none."""
    answers: tuple[tuple[str, tuple[str, ...]], ...]
    """Each status with the error codes it may carry."""


class Explorer:
    """Serves the OpenAPI document and the explorer page."""

    def __init__(self, document: dict[str, Any], site: Site) -> None:
        self._site = site
        self._document = encode(document)
        self._tags = tuple((t["name"], t["description"]) for t in document["tags"])
        self._operations = operations(document)

    async def document(self, request: Request) -> Response:
        """Return the OpenAPI document."""
        return Response(self._document, media_type="application/json")

    async def page(self, request: Request) -> Response:
        """Return the page."""
        return self._site.render(request, "docs.html", tags=self._tags, operations=self._operations)


def operations(document: dict[str, Any]) -> tuple[Operation, ...]:
    """Return the operations of *document* in its order."""
    return tuple(
        _operation(document, verb, path, operation)
        for path, verbs in document["paths"].items()
        for verb, operation in verbs.items()
    )


def _operation(document: dict[str, Any], verb: str, path: str, found: dict[str, Any]) -> Operation:
    content = found["responses"]["200"]["content"]
    return Operation(
        verb=verb.upper(),
        path=path,
        tag=found["tags"][0],
        summary=found["summary"],
        notes=tuple(found["description"].replace("\n\n", "\0").replace("\n", " ").split("\0"))[1:],
        needs_session=bool(found["security"]),
        streams="text/event-stream" in content,
        parameters=tuple(found.get("parameters", ())),
        body=_example(document, found),
        answers=tuple(
            (status, _codes(answer)) for status, answer in sorted(found["responses"].items())
        ),
    )


def _codes(answer: dict[str, Any]) -> tuple[str, ...]:
    schema = next(iter(answer["content"].values()))["schema"]
    error = schema.get("properties", {}).get("error", {})
    return tuple(error["allOf"][1]["properties"]["code"]["enum"]) if "allOf" in error else ()


def _example(document: dict[str, Any], found: dict[str, Any]) -> str:
    """Return an example body with every field empty."""
    if "requestBody" not in found:
        return ""
    reference = found["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    empty: dict[str, object] = {"string": "", "boolean": False, "integer": 0, "number": 0}
    example = {
        name: empty.get(field.get("type", "")) for name, field in schema["properties"].items()
    }
    return encode(example).decode()
