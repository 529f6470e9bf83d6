"""The mesh: contract model, shared runtime, renderers, local runner and console."""
