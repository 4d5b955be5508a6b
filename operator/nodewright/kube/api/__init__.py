"""Typed projections of the Kubernetes API objects that Nodewright reads and writes.

One module per area; `nodewright.kube.objects` re-exports every public name, and is what other packages import.
"""
