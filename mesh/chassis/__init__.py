"""Shared runtime of every process: identity, TLS, tokens, channels, servers, errors."""
