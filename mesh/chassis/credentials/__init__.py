"""Credentials of a process: certificates, private keys and other secrets."""
