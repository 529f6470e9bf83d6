"""Renderers: deterministic configuration for every target, from contracts and topology."""
