"""Whether the kernel has an IPVS scheduler: the only way to know is to ask for a service that uses it."""

from __future__ import annotations

from nodewright_agent.proxy.backends.base import BackendError
from nodewright_agent.proxy.backends.ipvs import wire
from nodewright_agent.proxy.backends.ipvs.kernel import GONE, Command, Ipvs
from nodewright_agent.proxy.model import frontend_key, pack_address

# In the block that is reserved for the future (RFC 1112): nobody has a service there, and no packet gets there.
_NOWHERE = frontend_key(pack_address("240.0.0.1"), 6, 1)


def probe_scheduler(name: str) -> str | None:
    """Give what is missing for a scheduler, None where it works; the kernel loads its module when it can. Blocks."""
    try:
        kernel = Ipvs()
    except (BackendError, OSError) as error:
        return str(error)
    try:
        delete = Command(wire.DEL_SERVICE, wire.service_key(_NOWHERE), "end the trial of a scheduler", GONE)
        kernel.run([delete])  # of a trial that was killed
        kernel.run([Command(wire.NEW_SERVICE, wire.service(_NOWHERE, wire.Service(name)), f"scheduler {name}")])
        kernel.run([delete])
    except (BackendError, OSError) as error:
        return str(error)
    finally:
        kernel.close()
    return None
