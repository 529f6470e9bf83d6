"""Processes of the local mesh: planning, start, supervision and replacement."""
