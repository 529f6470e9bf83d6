"""The local certificate authority and certificate rotation."""
