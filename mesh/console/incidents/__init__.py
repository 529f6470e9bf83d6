"""Alerts, what explains them, and their runbooks."""
