"""Browser sessions: the cookie, the cache of verified sessions, the same-origin check."""
