"""Identifies callers by SPIFFE id, from their certificate or the sidecar's header."""

import functools
from typing import Protocol
from urllib.parse import unquote

from mesh.chassis.config import MeshSettings
from mesh.chassis.credentials.peer_certificates import is_acceptable
from mesh.chassis.errors import PermissionDeniedError
from mesh.chassis.identity import InvalidSpiffeIdError, SpiffeId
from mesh.chassis.interceptors.context import Context, Metadata

_XFCC = "x-forwarded-client-cert"


class Identify(Protocol):
    """Identifies the caller of a call."""

    def __call__(self, context: Context, metadata: Metadata) -> SpiffeId:
        """Return the caller's identity, from a call's *context* and *metadata*.

        Raises:
            PermissionDeniedError: The caller has no identity, several, or a foreign one.
        """
        ...


def identify(settings: MeshSettings) -> Identify:
    """Return how callers are identified on the transport of *settings*."""
    find = _from_sidecar if settings.transport == "sidecar" else _from_certificate

    @functools.lru_cache(maxsize=1024)
    def accept(text: str) -> SpiffeId:
        try:
            found = SpiffeId.parse(text)
        except InvalidSpiffeIdError as exc:
            raise PermissionDeniedError(
                "The caller does not present an identity of this mesh."
            ) from exc
        if found != settings.identity(found.name):
            raise PermissionDeniedError(
                "The caller belongs to another trust domain or namespace.", caller=text
            )
        return found

    return lambda context, metadata: accept(find(context, metadata))


def _from_certificate(context: Context, _metadata: Metadata) -> str:
    """Return the single URI SAN of an acceptable leaf certificate; empty otherwise."""
    facts = context.auth_context()
    uris = list(facts.get("peer_uri", ()))
    ids = list(facts.get("peer_spiffe_id", ()))
    if not len(uris) == len(ids) == 1 or ids[0] != uris[0]:
        return ""
    leaf = next(iter(facts.get("x509_pem_cert", ())), b"")
    chain = next(iter(facts.get("x509_pem_cert_chain", ())), b"")
    return ids[0].decode() if is_acceptable(leaf, chain) else ""


def _from_sidecar(_context: Context, metadata: Metadata) -> str:
    """Return the identity in the one ``x-forwarded-client-cert``; empty if there are several."""
    values = [value for key, value in metadata if key == _XFCC]
    return _forwarded(str(values[0])) if len(values) == 1 else ""


@functools.lru_cache(maxsize=1024)
def _forwarded(element: str) -> str:
    """Return the URI of an element of the header, if its certificates are acceptable.

    Only the sidecar can connect to the Unix socket, and it overwrites the header that clients
    send. The element contains a URI, which is never quoted, and the percent-encoded certificates,
    so splitting is exact. Istio's proxies do not send the certificates; Istio issues them itself.
    """
    if "," in element:
        return ""
    pairs = [part.partition("=") for part in element.split(";")]
    uris = [value for key, _, value in pairs if key == "URI"]
    chains = [unquote(value.strip('"')).encode() for key, _, value in pairs if key == "Chain"]
    if len(uris) != 1 or len(chains) > 1:
        return ""
    return uris[0] if not chains or is_acceptable(chains[0], chains[0]) else ""
