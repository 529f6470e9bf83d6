"""Alerts, the incidents that group them by cause, and runbooks."""
