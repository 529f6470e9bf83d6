"""Tests of Auth."""
