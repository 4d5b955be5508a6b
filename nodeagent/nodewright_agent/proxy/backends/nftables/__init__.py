"""The nftables backend: own netlink encoding, shared maps, one transaction for each change."""
