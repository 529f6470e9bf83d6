"""Surveys: links, answering, piping and PDF."""
