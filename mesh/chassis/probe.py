"""Health probe: ``python -m mesh.chassis.probe grpc|http|https ADDRESS NAME [alive]``.

Containers' health checks run it: a service behind a sidecar listens on a Unix socket only, which
external probes cannot reach. With ``alive`` any response counts. Exit status: 0 healthy, 1 not
healthy, 2 wrong arguments. It runs every ten seconds in every container, so it imports little.
"""

import contextlib
import socket
import sys
from io import BufferedReader

SECONDS = 2.0
_LINE_BYTES = 8192
USAGE = "python -m mesh.chassis.probe (grpc ADDRESS SERVICE | http|https ADDRESS PATH) [alive]"


def ask_grpc(address: str, service: str) -> bool | None:
    """
    Return whether the gRPC server at *address* reports *service* as SERVING; None if silent.

    Uses raw HTTP/2 frames: importing grpc costs ten times the CPU of the whole check.

    Source:
        gRPC over HTTP/2; GRPC Health Checking Protocol; RFC 9113, section 4.1; RFC 7541, 6.2.2.
    """
    with _connected(address) as connection:
        try:
            connection.sendall(_check(service))
            with connection.makefile("rb") as answer:
                return _is_serving(answer)
        except OSError:
            return None


_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 0x1, 0x4
_SERVING = b"\x08\x01"


def _check(service: str) -> bytes:
    """Return the bytes of a call to ``Check``: preface, settings, headers, message."""
    name = service.encode()
    message = b"\x0a" + bytes([len(name)]) + name
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/grpc.health.v1.Health/Check",
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    # Literal fields without indexing: a zero byte, then name and value with their lengths.
    block = b"".join(
        b"\0" + bytes([len(key)]) + key.encode() + bytes([len(value)]) + value.encode()
        for key, value in fields.items()
    )
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, block)
        + _frame(_DATA, _END_STREAM, 1, b"\0" + len(message).to_bytes(4, "big") + message)
    )


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + payload


def _is_serving(answer: BufferedReader) -> bool | None:
    """Read frames until the response; None if the connection ends before."""
    while len(head := answer.read(9)) == 9:
        payload = answer.read(int.from_bytes(head[:3], "big"))
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
        if stream == 1 and kind == _DATA:
            return payload[5:] == _SERVING
        if stream == 1 and kind == _HEADERS and flags & _END_STREAM:
            # An error, for example because the service is unknown.
            return False
    return None


def ask_http(address: str, path: str, *, tls: bool = False) -> bool | None:
    """
    Return whether GET *path* at ``unix:/PATH`` or ``HOST:PORT`` succeeds; None if silent.

    Uses a raw request: importing ``http.client`` costs as much CPU as the rest of the check.
    """
    with _connected(address) as connection:
        try:
            request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            with _over_tls(connection) if tls else connection as stream:
                stream.sendall(request.encode())
                with stream.makefile("rb") as answer:
                    version, _, rest = answer.readline(_LINE_BYTES).partition(b" ")
        except OSError:
            return None
    return rest[:1] == b"2" if version.startswith(b"HTTP/1.") else None


def _connected(address: str) -> socket.socket:
    unix = address.startswith("unix:")
    bound = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    bound.settimeout(SECONDS)
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):  # The request that follows fails as well.
        bound.connect(address.removeprefix("unix:") if unix else (host, int(port)))
    return bound


def _over_tls(bound: socket.socket) -> socket.socket:
    """Return *bound* after a TLS handshake that does not verify the certificate."""
    import ssl

    # Not the default context, which loads all system CAs.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(bound)


def main(arguments: list[str]) -> int:
    """Run the probe given by *arguments* and return the exit status."""
    match arguments:
        case ["grpc", address, name, *rest]:
            answer = ask_grpc(address, name)
        case ["http" | "https" as scheme, address, name, *rest]:
            answer = ask_http(address, name, tls=scheme == "https")
        case _:
            rest = ["?"]
    if rest not in ([], ["alive"]):
        sys.stderr.write(f"{USAGE}\n")
        return 2
    return 0 if answer or (rest and answer is not None) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
