"""Names and limits that both sides of a connection must agree on: each is defined here only."""

CANARY_HEADER = "x-canary"
"""With the value 1, a call and all calls that it causes go to canaries."""
SESSION_COOKIE = "__Host-amarre_session"
"""The session cookie of browsers."""
LOG_OUT_PATHS = ("/logout", "/api/v1/auth/logout")
"""The paths of log-out, which ends the session whatever else is wrong with the request."""
HEALTH_PATH = "/healthz"
"""The path of HTTP health checks; left out of traces."""
ALWAYS_SERVED = (HEALTH_PATH, *LOG_OUT_PATHS)
"""Paths that are served under overload too."""
BODY_BYTES = 64 * 1024
"""The maximum size of an HTTP request's body, at the edge and in the gateway."""
MESSAGE_BYTES = 4 * 1024 * 1024
"""The maximum size of a gRPC message, for clients and servers."""
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
"""The services of server reflection, both versions; only the operator may call them."""
