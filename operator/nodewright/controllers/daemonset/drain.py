"""The order in which pods leave a node that is drained. Pure.

A node is being drained while it has the taint `nodewright.dev/drain`. The pods of DaemonSets with `nodeDrain:
LeaveLast` go there after all ordinary pods, and among each other by ascending priority.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from nodewright.controllers.daemonset.claims import controller
from nodewright.controllers.daemonset.eligibility import Verdict
from nodewright.controllers.daemonset.model import DaemonSet, Node, Pod
from nodewright.controllers.daemonset.owntaints import DRAIN_TAINT
from nodewright.controllers.daemonset.prepull import is_puller

LEAVE_LAST = "LeaveLast"
_SHOWN = 3  # names in a reason


def is_draining(node: Node | None) -> bool:
    """Whether the node is being drained."""
    return node is not None and any(taint.key == DRAIN_TAINT for taint in node.spec.taints)


def leaves_last(ds: DaemonSet) -> bool:
    """Whether the DaemonSet's pods leave a node that is drained."""
    return ds.spec.node_drain == LEAVE_LAST


def is_mirror(pod: Pod) -> bool:
    """Whether it stands for a static pod of the node, which no API request can end."""
    own = pod.metadata.annotations
    return bool(own and own.mirror) or any(ref.kind == "Node" for ref in pod.metadata.owner_references)


def waits_for(mine: Iterable[Pod], on_node: Iterable[Pod], leaving: Collection[str]) -> list[Pod]:
    """The pods of a node that are to be gone before those of one DaemonSet there (`mine`) may go.

    `leaving` are the UIDs of all DaemonSets with LeaveLast. Other daemon pods stay, so they are not waited for; neither
    are mirror pods, pods that only pull images, and pods that have ended. A DaemonSet stands in line with the lowest
    priority of its pods: with any other, two DaemonSets could wait for each other.
    """
    own = list(mine)
    uids = {pod.metadata.uid for pod in own}
    lowest: dict[str, int] = {}
    ordinary: list[Pod] = []
    daemons: list[tuple[str, Pod]] = []
    for pod in on_node:
        if pod.metadata.uid in uids or is_mirror(pod) or is_puller(pod):
            continue
        # One that is being deleted is waited for to its very end: till then its volumes may need their driver.
        if pod.terminal and not pod.deleting:
            continue
        owner = controller(pod.metadata)
        if owner is not None and owner.uid in leaving:
            daemons.append((owner.uid, pod))
            lowest[owner.uid] = min(lowest.get(owner.uid, pod.spec.priority), pod.spec.priority)
        elif owner is None or owner.kind != "DaemonSet":
            ordinary.append(pod)
    place = min((pod.spec.priority for pod in own), default=0)
    before = [pod for uid, pod in daemons if lowest[uid] < place]
    return sorted([*ordinary, *before], key=lambda pod: (pod.spec.priority, pod.key))


def verdict(base: Verdict, blockers: Sequence[Pod]) -> Verdict:
    """What becomes of a verdict on a node that is being drained, for a DaemonSet with LeaveLast."""
    if not base.should_continue:
        return base
    if not blockers:
        return Verdict(False, False, "the node is being drained")
    names = ", ".join(pod.key for pod in blockers[:_SHOWN])
    more = f" and {len(blockers) - _SHOWN} more" if len(blockers) > _SHOWN else ""
    return Verdict(False, True, f"the node is being drained; the pod leaves after {names}{more}")
