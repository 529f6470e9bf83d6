"""Queries on the store: traces, logs, objectives, service graph, overview."""
