"""Same-origin check of state-changing requests."""

from collections.abc import Set as AbstractSet

from starlette.requests import HTTPConnection

from gateway.errors import CsrfError
from gateway.sessions.origin import Origin

SAFE_METHODS = frozenset({"GET", "HEAD"})


def require(connection: HTTPConnection, origins: AbstractSet[Origin]) -> None:
    """
    Check that a state-changing request comes from one of our own pages.

    Raises:
        CsrfError: The headers are missing or name another origin, or Host is not one of ours.

    Source:
        Fetch Metadata Request Headers, section 2; OWASP CSRF prevention, "verifying origin";
        RFC 6454, section 5, for the comparison of origins.
    """
    if connection.scope["method"] in SAFE_METHODS:
        return
    hosts = connection.headers.getlist("host")
    # Otherwise the page may be of a name that its owner has pointed at this address.
    if not all(_is_ours(host, origins) for host in hosts):
        raise CsrfError
    sites = connection.headers.getlist("sec-fetch-site")
    if sites:
        if sites != ["same-origin"]:
            raise CsrfError
        return
    given = connection.headers.getlist("origin")
    if len(given) != 1 or len(hosts) != 1:
        raise CsrfError
    try:
        origin = Origin.parse(given[0])
        same = origin in origins and Origin.of_host(origin.scheme, hosts[0]) == origin
    except ValueError:
        same = False
    if not same:
        raise CsrfError


def _is_ours(host: str, origins: AbstractSet[Origin]) -> bool:
    """Return whether *host* is that of an origin; on a laptop, any name of the laptop itself is."""
    try:
        named = [Origin.of_host(scheme, host) for scheme in ("http", "https")]
    except ValueError:
        return False
    if not origins.isdisjoint(named):
        return True
    return named[0].is_loopback and any(origin.is_loopback for origin in origins)
