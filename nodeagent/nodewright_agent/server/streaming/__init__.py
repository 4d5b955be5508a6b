"""Streams into containers: exec, attach and port-forward over SPDY/3.1 and WebSockets, for any HTTP server of ours.

``kubelet`` serves kubelet's routes, ``urls`` the URLs of a CRI runtime's streaming server; both use the same sessions.
"""
