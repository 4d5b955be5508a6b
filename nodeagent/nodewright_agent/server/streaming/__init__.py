"""Streams into containers: exec, attach and port-forward over SPDY/3.1 and WebSockets, for any HTTP server of ours.

``kubelet`` serves kubelet's routes; ``backend`` is what they lead to.
"""
