"""
``python -m mesh.chassis.probe grpc|http|https ADDRESS NAME [alive]``: is the process here ready?

Containers' health checks run it: a service behind a sidecar listens on a Unix socket only, which
probes from outside cannot reach. With ``alive`` any answer will do. Exit status 0 means yes, 1 no,
2 wrong arguments.
"""

import contextlib
import http.client
import socket
import sys

SECONDS = 2.0
USAGE = "python -m mesh.chassis.probe (grpc ADDRESS SERVICE | http|https ADDRESS PATH) [alive]"


def ask_grpc(address: str, service: str) -> bool | None:
    """Say whether the gRPC server at *address* calls *service* SERVING; None when it is silent."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    request = health_pb2.HealthCheckRequest(service=service)
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=SECONDS)
        except grpc.RpcError:
            return None
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def ask_http(address: str, path: str, *, tls: bool = False) -> bool | None:
    """Say whether GET *path* at ``unix:/PATH`` or ``HOST:PORT`` succeeds; None when silent."""
    # Not httpx: it leaves the socket open when nobody listens, and takes longer to import.
    connection = http.client.HTTPConnection("localhost", timeout=SECONDS)
    with contextlib.closing(connection), _connected(address) as connection.sock:
        try:
            if tls:
                connection.sock = _over_tls(connection.sock)
            connection.request("GET", path)
            return 200 <= connection.getresponse().status < 300
        except (OSError, http.client.HTTPException):
            return None


def _connected(address: str) -> socket.socket:
    unix = address.startswith("unix:")
    bound = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    bound.settimeout(SECONDS)
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):  # The request that follows fails and says the same.
        bound.connect(address.removeprefix("unix:") if unix else (host, int(port)))
    return bound


def _over_tls(bound: socket.socket) -> socket.socket:
    """Return *bound* after a handshake; whose certificate it is does not matter here."""
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(bound)


def main(arguments: list[str]) -> int:
    """Probe as *arguments* say; returns the exit status."""
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
