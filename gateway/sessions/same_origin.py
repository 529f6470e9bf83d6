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
        CsrfError: The headers are missing or name another origin.

    Source:
        Fetch Metadata Request Headers, section 2; OWASP CSRF prevention, "verifying origin";
        RFC 6454, section 5, for the comparison of origins.
    """
    if connection.scope["method"] in SAFE_METHODS:
        return
    sites = connection.headers.getlist("sec-fetch-site")
    if sites:
        if sites != ["same-origin"]:
            raise CsrfError
        return
    given = connection.headers.getlist("origin")
    hosts = connection.headers.getlist("host")
    if len(given) != 1 or len(hosts) != 1:
        raise CsrfError
    try:
        origin = Origin.parse(given[0])
        same = origin in origins and Origin.of_host(origin.scheme, hosts[0]) == origin
    except ValueError:
        same = False
    if not same:
        raise CsrfError
