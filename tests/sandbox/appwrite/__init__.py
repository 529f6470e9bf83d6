"""Tests of the Appwrite sandbox."""
