"""Pod networking of one node: bridge, veth pairs, addresses, routes, masquerade, and local node hosts.

* ``addresses`` is the pure part: which address a pod gets, how its MAC follows from it, which routes a node needs.
* ``ipam`` keeps the assignments on disk, one file per address.
* ``links`` is the thin layer over netlink (it blocks: always in a thread).
* ``podnet`` puts these together: ``PodNetwork.attach`` gives a sandbox its ``eth0``.
* ``masquerade`` hides pods from everything outside the cluster.
* ``hosts`` makes node hosts on one machine: network namespaces joined by a bridge.
"""
