"""Preemption: which Pods of lower priority have to go so that a Pod fits, and their eviction.

`dry_run` tries nodes out in the scheduler's own picture, `choice` compares the candidates, `budgets` tells which
victims a PodDisruptionBudget protects, `finder` puts them together, and `evictor` does it to the cluster.
"""
