"""A picture of a cluster to ask questions about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from ..core import SchedulerCore
from ..objects import Node, Pod
from ..profile import Profile
from .answer import Explanation
from .gangs import gang_state
from .verdicts import explain

HYPOTHETICAL = "hypothetical"


class Cluster:
    """A scheduler's picture that is not followed; nothing of it is written back. `core` takes what else there is."""

    def __init__(
        self, nodes: Iterable[Node], pods: Iterable[Pod], profiles: Mapping[str, Profile] | None = None
    ) -> None:
        """Pods that have ended must not be among `pods`; those that wait count if a profile serves them."""
        self.core = SchedulerCore(profiles or {}, lambda: 0.0)
        self.notes: list[str] = []
        for node in nodes:
            self.core.on_node(None, node)
            row = self.core.state.rows.get(node.metadata.name)
            if row is None or self.core.state.nodes[row] is None:
                self.notes.append(f"node {node.metadata.name} is left out: an amount in its status cannot be read")
        for pod in pods:
            self.core.on_pod(None, pod)

    def explain(self, profile: Profile, pod: Pod, *, detailed: int | None = None) -> Explanation:
        """Ask every plugin about every node. A bound Pod is looked at as if it were not placed yet.

        Only the `detailed` nearest of the nodes that reject the Pod say what is missing in detail; None: all. About a
        member of a gang, a picture answers once: trying the gang out leaves traces. Raises PluginError, and ValueError
        where a quantity of the Pod cannot be read.
        """
        core = self.core
        bound_to = pod.spec.node_name if core.state.remove_pod(pod.metadata.uid) is not None else ""
        if bound_to:
            pod = msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, node_name=""))
        is_new = not pod.metadata.uid
        info = core.factory.info(pod)
        answer = explain(profile, core.state, info, bound_to, budgets=core.placing.budgets, detailed=detailed)
        answer.notes = list(self.notes)
        if is_new:
            pod = msgspec.structs.replace(pod, metadata=msgspec.structs.replace(pod.metadata, uid=HYPOTHETICAL))
            core.on_pod(None, pod)
            info = core.factory.info(pod)
        answer.gang = gang_state(core, profile, info)
        if answer.gang is not None and answer.gang.message:
            answer.message = answer.gang.message
        return answer
