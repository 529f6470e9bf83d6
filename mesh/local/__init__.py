"""The mesh on one machine: local CA, processes and control actions."""
