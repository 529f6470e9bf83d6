"""Control actions on the running mesh: faults, canaries, restarts, certificates."""
