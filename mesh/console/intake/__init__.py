"""Incoming telemetry: OTLP, scraped metrics, Envoy's admin interface; decoded and redacted."""
