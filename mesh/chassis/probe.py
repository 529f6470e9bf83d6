"""
``python -m mesh.chassis.probe grpc|http ADDRESS NAME``: is the process in this container ready?

Containers' health checks run it: a service behind a sidecar listens on a Unix socket only, which
probes from outside cannot reach. Exit status 0 means ready, 1 not ready, 2 wrong arguments.
"""

import contextlib
import http.client
import socket
import sys

SECONDS = 2.0
USAGE = "python -m mesh.chassis.probe grpc ADDRESS SERVICE | http ADDRESS PATH"


def grpc_serves(address: str, service: str) -> bool:
    """Say whether the gRPC server at *address* calls *service* SERVING."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    request = health_pb2.HealthCheckRequest(service=service)
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def http_answers(address: str, path: str) -> bool:
    """Say whether GET *path* at *address*, ``unix:/PATH`` or ``HOST:PORT``, succeeds."""
    # Not httpx: it leaves the socket open when nobody listens, and takes longer to import.
    connection = http.client.HTTPConnection("localhost", timeout=SECONDS)
    with contextlib.closing(connection), _connected(address) as connection.sock:
        try:
            connection.request("GET", path)
            return 200 <= connection.getresponse().status < 300
        except (OSError, http.client.HTTPException):
            return False


def _connected(address: str) -> socket.socket:
    unix = address.startswith("unix:")
    bound = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    bound.settimeout(SECONDS)
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):  # The request that follows fails and says the same.
        bound.connect(address.removeprefix("unix:") if unix else (host, int(port)))
    return bound


def main(arguments: list[str]) -> int:
    """Probe as *arguments* say; returns the exit status."""
    kinds = {"grpc": grpc_serves, "http": http_answers}
    if len(arguments) != 3 or arguments[0] not in kinds:
        sys.stderr.write(f"{USAGE}\n")
        return 2
    kind, address, name = arguments
    return 0 if kinds[kind](address, name) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
