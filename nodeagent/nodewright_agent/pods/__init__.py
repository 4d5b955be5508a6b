"""Pods of one node: a pure core (machine, status, spec, files) and the thin shell that acts on its decisions."""
