"""What every process of the mesh stands on: identity, TLS, tokens, channels, servers, errors."""
