"""Web origins: scheme, host and port, compared as tuples."""

import ipaddress
import re
from dataclasses import dataclass

_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<host>[^/?#@\s]*)", re.ASCII)
_HOST = re.compile(
    r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::(?P<port>[0-9]{0,5}))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Origin:
    """An origin with an explicit port; scheme and host are in lower case."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"

    @property
    def is_loopback(self) -> bool:
        """Whether the host is a name or address of the client's own machine.

        Source:
            Secure Contexts, section 3.1; RFC 6761, section 6.3.
        """
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @classmethod
    def parse(cls, text: str) -> "Origin":
        """
        Return the origin written as *text*, such as ``https://amarre.example.org``.

        Raises:
            ValueError: *text* is ``null``, has a path or user information, or is malformed.

        Source:
            RFC 6454, sections 4, 5 and 6.2.
        """
        found = _ORIGIN.fullmatch(text)
        scheme = found["scheme"].lower() if found else ""
        if found is None or scheme not in _PORTS:
            raise ValueError(f"{text!r} is not an http or https origin")
        return cls.of_host(scheme, found["host"])

    @classmethod
    def of_host(cls, scheme: str, host: str) -> "Origin":
        """
        Return the origin of the Host header *host* on *scheme*.

        Raises:
            ValueError: *host* is malformed.

        Source:
            RFC 9110, sections 4.2.3 and 7.2.
        """
        found = _HOST.fullmatch(host)
        if found is None:
            raise ValueError(f"{host!r} is not a host")
        port = int(found["port"]) if found["port"] else _PORTS[scheme]
        if not 0 < port < 65536:
            raise ValueError(f"{host!r} has an invalid port")
        return cls(scheme, found["name"].lower(), port)
