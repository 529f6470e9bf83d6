"""Rules of signing in: addresses, magic links, passkeys, rate limits."""
