"""Health service: probes of allowed hosts and the status of the mesh."""
