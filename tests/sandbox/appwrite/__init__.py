"""Tests of the Appwrite stand-in."""
