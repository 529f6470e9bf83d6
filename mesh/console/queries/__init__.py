"""Answers from the store: traces, logs, objectives, service graph, overview."""
