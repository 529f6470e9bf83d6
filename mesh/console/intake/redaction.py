"""
What is never stored, whatever a process sends: the second line of defence behind the processes.

Credentials go by the name of their attribute, personal fields by their name in the contracts,
bearer tokens, e-mail addresses and query strings by their look.
"""

import functools
import re
from importlib import import_module

from google.protobuf.descriptor import FileDescriptor

from mesh.contract import policy, sensitivity

REDACTED = "[redacted]"
_DOORS = re.compile(
    r"(^|[._\-])(authorization|proxy-authorization|cookie|set-cookie|password|passwd|secret|"
    r"token|api[_-]?key|private[_-]?key)s?($|[._\-])",
    re.IGNORECASE,
)
_PERSONS = frozenset(
    {"client.address", "source.address", "peer.address", "http.client_ip", "net.peer.ip"}
    | {"net.sock.peer.addr", "network.peer.address", "user_agent.original", "enduser.id"}
)
"""Attributes of OpenTelemetry and of Envoy that tell of whoever sits at the browser."""
_PLAIN = {"title", "url", "steps", "fields", "data", "device", "filename"}
"""Field names so common that an attribute of that name says nothing about a person."""
_OURS = {"amarre", "request", "response", "user", *policy.SERVICES}
"""The namespaces in which an attribute may be named after a field of a contract."""
_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE)
_JWT = re.compile(r"\beyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]{4,}")
_EMAIL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]+(\.[\w-]+)+")
_QUERY = re.compile(r"(https?://[^\s?\"'<>]*|^/[^\s?\"'<>]*)\?[^\s\"'<>]+")


@functools.lru_cache(maxsize=8192)
def is_forbidden(key: str) -> bool:
    """Say whether an attribute called *key* is never stored."""
    prefix, _, name = key.lower().rpartition(".")
    # service.name is nobody's name: in namespaces of OpenTelemetry the contracts say nothing.
    ours = not prefix or prefix.partition(".")[0] in _OURS
    if key.lower() in _PERSONS or _DOORS.search(key):
        return True
    return ours and name in _personal()


def clean(text: str) -> str:
    """Return *text* without what looks like a credential, an e-mail address or a query string."""
    if "@" in text:
        text = _EMAIL.sub(REDACTED, text)
    if "?" in text:
        text = _QUERY.sub(r"\1?" + REDACTED, text)
    if "eyJ" in text:
        text = _JWT.sub(REDACTED, text)
    lowered = text[:4096].lower()
    if "bearer " in lowered or "basic " in lowered:
        text = _BEARER.sub(rf"\1 {REDACTED}", text)
    return text


@functools.cache
def _personal() -> frozenset[str]:
    """Return the names of all fields that a contract calls personal or secret."""
    files = {method.descriptor.containing_service.file for method in policy.load()}
    files |= {import_module(f"amarre.{area}.v1.{area}_pb2").DESCRIPTOR for area in policy.SERVICES}
    return frozenset(name for file in files for name in _sensitive(file)) - _PLAIN


def _sensitive(file: FileDescriptor) -> set[str]:
    return {
        field.name
        for message in file.message_types_by_name.values()
        for field in message.fields
        if sensitivity.of(field)
    }
