"""The embedded control plane: real etcd, kube-apiserver and kube-controller-manager on this machine.

The map: `assets` finds or makes the binaries (`assetcache`, `download`, `gobuild` are its steps), `slots` and
`state` decide names, addresses and ports, `pki` and `certificates` make the keys, `configs` and `flags` say what
each process is told, `processes` starts and stops them by exact identity, and `cluster.LocalCluster` ties it
together. Everything below `LocalCluster` can be used alone; nothing here imports the host side.
"""
