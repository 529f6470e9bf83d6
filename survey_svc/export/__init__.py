"""The user's own answers as a file."""
