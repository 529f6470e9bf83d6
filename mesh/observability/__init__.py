"""Committed configuration of monitoring, and the schema of what the mesh tells of itself."""
