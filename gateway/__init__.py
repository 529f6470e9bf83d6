"""The REST gateway between browsers and services. It contains no survey or identity rules."""
