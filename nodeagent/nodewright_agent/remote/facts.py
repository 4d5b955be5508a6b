"""What a runtime says of itself, and what follows from it for the node. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from nodewright_agent.runtime.features import RuntimeFeatures

RUNTIME_READY, NETWORK_READY = "RuntimeReady", "NetworkReady"
_IMAGE_VOLUMES = {"containerd": (2, 1), "cri-o": (1, 31), "nodewright": (0,)}
_EVENTS: dict[str, tuple[int, ...]] = {"containerd": (2, 0)}
"""From which version on a runtime can do it: CRI has no word for that."""
_NUMBER = re.compile(r"v?(\d+(?:\.\d+)*)")


@dataclass(frozen=True, slots=True)
class RuntimeFacts:
    """A runtime, as its Version, Status and RuntimeConfig have it."""

    name: str = ""
    version: str = ""
    handlers: dict[str, RuntimeFeatures] = field(default_factory=dict)
    """By name; empty where it does not tell (before CRI of 1.30): then it is asked for whatever a pod's class says."""
    supplemental_groups_policy: bool = False
    user_namespaces_host_network: bool = False
    """Whether a pod can have a user namespace with the host's network."""
    sandbox_image: str = ""

    @property
    def scheme(self) -> str:
        """What stands before the ids of containers."""
        return f"{self.name}://"

    @property
    def described(self) -> str:
        """Node.status.nodeInfo.containerRuntimeVersion."""
        return f"{self.name}://{self.version}"

    @property
    def no_image_volumes(self) -> str:
        """Why the runtime mounts no images; empty: it does."""
        return "" if self._since(_IMAGE_VOLUMES) else f"image volumes: {self.name} {self.version} does not mount images"

    @property
    def events(self) -> bool:
        """Whether all who listen are told all events: containerd 1.7 gives each to one, who may have hung up."""
        return self._since(_EVENTS)

    def user_namespaces(self, handler: str) -> bool:
        """Whether pods of a handler can have user namespaces."""
        found = self.handlers.get(handler)
        return found is not None and found.user_namespaces

    def _since(self, versions: dict[str, tuple[int, ...]]) -> bool:
        """Runtimes that are not known here are taken at their word: they refuse what they cannot do."""
        wanted = versions.get(self.name)
        found = _NUMBER.match(self.version)
        if wanted is None or found is None:
            return True
        return tuple(int(part) for part in found[1].split(".")) >= wanted


def of_answers(version: Any, status: Any) -> RuntimeFacts:
    """Facts of a VersionResponse and a verbose StatusResponse."""
    return RuntimeFacts(
        name=version.runtime_name,
        version=version.runtime_version,
        handlers={
            one.name: RuntimeFeatures(
                recursive_read_only=one.features.recursive_read_only_mounts,
                user_namespaces=one.features.user_namespaces,
            )
            for one in status.runtime_handlers
        },
        supplemental_groups_policy=status.features.supplemental_groups_policy,
        user_namespaces_host_network=status.features.user_namespaces_host_network,
        sandbox_image=_sandbox_image(status.info.get("config", "")),
    )


def problem(status: Any, condition: str) -> str:
    """What is wrong with a condition of a StatusResponse, in kubelet's words; empty: nothing."""
    found = next((one for one in status.status.conditions if one.type == condition), None)
    if found is None:
        return f"{condition} is not told"
    if found.status:
        return ""
    return f"{condition}={str(found.status).lower()} reason:{found.reason} message:{found.message}"


def _sandbox_image(text: str) -> str:
    """What containerd's own config says; others pin theirs."""
    try:
        document = json.loads(text or "{}")
    except ValueError:
        return ""
    found = document.get("sandboxImage", "") if isinstance(document, dict) else ""
    return found if isinstance(found, str) else ""
