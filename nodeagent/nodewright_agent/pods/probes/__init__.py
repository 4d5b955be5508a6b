"""Startup, readiness and liveness probes: one task per probe of a running container.

``counting`` is the pure part (thresholds), ``checks`` does one probe, ``grpc`` asks a gRPC server, ``runner`` keeps
time, ``metrics`` counts.
"""
