"""Auth: sign-in by magic link and passkey, sessions, and the user tokens issued for them."""
