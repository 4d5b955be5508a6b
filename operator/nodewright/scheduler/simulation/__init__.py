"""What would become of Pods that do not exist: the real scheduler core, run on a picture of a cluster.

`documents` reads manifests and dumps, `snapshot` is a picture of a cluster (from the API or from a dump), `workloads`
turns manifests into Pods as controllers would, `defaults` fills in what the API server would, `scenario` puts them
together, `run` lets the core decide until nothing moves any more, `answer` is what comes out.
"""
