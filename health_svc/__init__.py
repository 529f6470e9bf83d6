"""Health: probes of allowed hosts, and how the mesh and what it stands on are."""
