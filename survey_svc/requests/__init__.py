"""Mobility requests: rules, creation, lists and change streams."""
