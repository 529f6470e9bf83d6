"""SPIFFE identities as parsed values."""

import re
from dataclasses import dataclass
from typing import Self

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class InvalidSpiffeIdError(ValueError):
    """The text is not a SPIFFE id of the form that this mesh issues."""


@dataclass(frozen=True)
class SpiffeId:
    """``spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT``.

    Source:
        SPIFFE-ID, section 2; the path is the one that Istio gives workloads.
    """

    trust_domain: str
    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse *text* strictly: lower case, no port, no query, no empty segment.

        Raises:
            InvalidSpiffeIdError: The text is anything else.
        """
        scheme, _, rest = text.partition("://")
        domain, *segments = rest.split("/")
        if scheme != "spiffe" or len(segments) != 4 or segments[0] != "ns" or segments[2] != "sa":
            raise InvalidSpiffeIdError(
                f"{text[:300]!r} is not of the form spiffe://DOMAIN/ns/NAMESPACE/sa/NAME."
            )
        _, namespace, _, name = segments
        if not (
            _TRUST_DOMAIN.fullmatch(domain)
            and _SEGMENT.fullmatch(namespace)
            and _SEGMENT.fullmatch(name)
        ):
            raise InvalidSpiffeIdError(f"{text[:300]!r} has a part that is not allowed.")
        return cls(domain, namespace, name)

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.name}"
