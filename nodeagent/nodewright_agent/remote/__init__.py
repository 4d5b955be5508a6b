"""The agent's Pods run by another runtime, behind its CRI v1 socket (``container_runtime_endpoint``).

Only what the option needs is imported for it: the built-in way knows nothing of this package, nor of gRPC.
"""

import os

# Programs that the agent starts execute at once: gRPC has nothing to prepare for a fork. It reads this once.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
