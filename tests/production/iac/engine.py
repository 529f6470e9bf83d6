#!/usr/bin/python3
"""A fake dockerd behind docker.socket: responds only to ping and version."""

import json
import socket
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn, UnixStreamServer

VERSION = {"ApiVersion": "1.45", "Version": "26.1.5", "MinAPIVersion": "1.24"}


class Handler(BaseHTTPRequestHandler):
    """Respond to one request."""

    def answer(self) -> None:
        bodies = {"/_ping": b"OK", "/version": json.dumps(VERSION).encode()}
        found = next((b for end, b in bodies.items() if self.path.endswith(end)), None)
        body = b'{"message": "only ping and version are answered"}' if found is None else found
        self.send_response(501 if found is None else 200)
        self.send_header("Api-Version", VERSION["ApiVersion"])
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = answer  # noqa: N815 - names that the base class calls

    def address_string(self) -> str:
        return "unix"


class Server(ThreadingMixIn, UnixStreamServer):
    """Serve the socket that systemd passes as descriptor 3."""

    daemon_threads = True


if __name__ == "__main__":
    server = Server("", Handler, bind_and_activate=False)
    server.socket = socket.socket(fileno=3)
    server.serve_forever()
