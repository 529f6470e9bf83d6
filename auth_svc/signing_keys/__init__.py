"""The keys that sign user tokens, and the endpoint that publishes their public keys."""
