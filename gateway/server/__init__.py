"""The HTTP server: listeners, the outermost middleware, per-request telemetry."""
