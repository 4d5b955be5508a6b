"""Nodewright: Kubernetes on real hosts, in Python. This package is the cluster side."""

__version__ = "0.1.0"
