"""The cluster as arrays: one row per node, kept up to date by difference.

`cluster.ClusterState` owns the rows and the amounts; `columns` encodes labels and taints, `ports` and `images` index
what few Pods ask for; `view.NodeView` is what plugins read: all rows, or the few that a change touched.
"""

from .cluster import ClusterState
from .view import NodeView

__all__ = ["ClusterState", "NodeView"]
