"""Administration of users: transfer between identity providers, blocking, ending sessions."""
