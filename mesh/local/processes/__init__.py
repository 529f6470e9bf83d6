"""Processes of the local mesh: planned, started, supervised, replaced."""
