"""Nodewright: the host side, a node agent on runc and netlink."""

__version__ = "0.1.0"
