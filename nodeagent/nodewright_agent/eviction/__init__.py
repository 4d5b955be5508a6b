"""Node-pressure eviction: which Pods have to go when the node runs short, and why.

``signals``, ``core``, ``ranking``, ``messages`` and ``limits`` are pure and follow upstream's pkg/kubelet/eviction;
``manager`` is the shell that observes, reclaims and evicts, and ``notify`` has the kernel tell of memory pressure.
"""
