"""Renderers: contract and topology into every target. Same input, same bytes."""
