"""Committed configuration of monitoring, and the schema of the telemetry of the mesh."""
