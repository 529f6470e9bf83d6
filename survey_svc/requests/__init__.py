"""Mobility requests: the rules, creating one, listing them and watching them change."""
