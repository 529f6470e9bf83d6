"""Rules of sessions and of the second factor."""
