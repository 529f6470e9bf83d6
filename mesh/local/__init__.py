"""The mesh on one machine: certificate authority, processes, canaries."""
