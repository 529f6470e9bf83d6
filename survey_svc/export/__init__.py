"""Export of the user's own answers as a file."""
