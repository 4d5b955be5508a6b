"""What must hold while the DaemonSet controller works, whatever happens around it (see `daemonset_lab`).

It is checked at every write that the controller makes (`Watchdog`), and in the end (`check_settled`):

- A pod is created on a node only where no other live one of the DaemonSet is there in truth, unless pods may surge.
  The one excuse is a write that the server carries out after its sender has given up on it and looked again, or has
  died: nobody can know of it in time. The doubles that come of that vanish.
- Of nodes that should have a pod, no more than maxUnavailable are without a ready one because the controller deleted
  an available one, or changed it in place, and where pods may surge none; whatever the caches show of kubelets' doings,
  and however late.
- Only pods and revisions that the DaemonSet controls are deleted, and no revision whose hash a pod of it carries.
  (A DaemonSet that was deleted, leaving its pods as orphans, goes on until the controller sees it.)
- Left in peace it settles: one available pod of the newest template per node that should have one, the status says
  what is so, one revision holds the template, the history is no longer than asked; and then another controller that
  starts with no memory finds nothing to write.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from nodewright.controllers.daemonset.canonical import canonical_bytes
from nodewright.controllers.daemonset.claims import controller as owner_of
from nodewright.controllers.daemonset.eligibility import judge
from nodewright.controllers.daemonset.model import HASH_LABEL, DaemonSet, Pod, Revision, Template
from nodewright.controllers.daemonset.pods import is_available, is_ready
from nodewright.controllers.daemonset.revisions import template_of
from nodewright.controllers.daemonset.rollout import limits
from nodewright.kube.resources import CONTROLLERREVISIONS, PODS
from support.fake_cluster import Write

if TYPE_CHECKING:
    from support.daemonset_lab import Lab

KEY = "ns/ds"


class Watchdog:
    """Looks at every write before it takes effect."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.taken: set[str] = set()  # nodes that the controller has taken a ready pod from, with none ready since

    def __call__(self, write: Write) -> None:
        """Remember the first thing that may not be: raised here, it would look to the controller like a bad answer."""
        try:
            self._look(write)
        except AssertionError as problem:
            self._lab.problem = self._lab.problem or problem

    def _look(self, write: Write) -> None:
        if write.client is None or write.plural != "pods":
            self._other(write)
            return
        lab = self._lab
        if write.client.is_landing:
            pod = msgspec.json.decode(msgspec.json.encode(write.after or write.before), type=Pod)
            lab.late_nodes.add(pod.target_node or "")
            return
        if write.verb == "create":
            self._created(write)
        elif write.before is not None and (write.verb == "delete" or _is_in_place(write)):
            self._deleted(write)

    def _other(self, write: Write) -> None:
        if write.plural == "pods" and write.after is not None:
            pod = msgspec.json.decode(msgspec.json.encode(write.after), type=Pod)
            if is_ready(pod) and not pod.deleting:
                self.taken.discard(pod.target_node or "")
        if write.client is not None and write.plural == "controllerrevisions" and write.verb == "delete":
            lab = self._lab
            assert write.before is not None
            gone = msgspec.json.decode(msgspec.json.encode(write.before), type=Revision)
            assert owner_of(gone.metadata) is not None
            if not write.client.is_landing and not lab.lates:
                carried = {p.metadata.labels.get(HASH_LABEL) for p in lab.own(lab.all(PODS, Pod))}
                assert gone.hash not in carried, f"revision {gone.hash} is deleted, and pods of it are there"

    def _created(self, write: Write) -> None:
        lab = self._lab
        pod = msgspec.json.decode(msgspec.json.encode(write.after), type=Pod)
        node = pod.target_node or ""
        seen = lab.process.controller.daemonsets.get(KEY)
        assert seen is not None
        _, surge = limits(seen.rolling, 100)
        if surge or node in lab.late_nodes or (lab.ds and lab.ds.metadata.uid != seen.metadata.uid):
            return
        there = [p.metadata.name for p in lab.live(node)]
        assert not there, f"a pod is made for {node}, where {there} live"

    def _deleted(self, write: Write) -> None:
        lab = self._lab
        pod = msgspec.json.decode(msgspec.json.encode(write.before), type=Pod)
        seen = lab.process.controller.daemonsets.get(KEY)
        assert seen is not None
        ref = owner_of(pod.metadata)
        if ref is None and lab.ds is not None and lab.ds.metadata.uid != seen.metadata.uid:
            return
        assert ref is not None, f"pod {pod.key} of nobody is deleted"
        assert ref.uid == seen.metadata.uid, f"pod {pod.key} of {ref} is deleted"
        node = pod.target_node or ""
        if node in lab.late_nodes or not is_available(pod, seen.spec.min_ready_seconds, lab.now) or pod.deleting:
            return
        template = msgspec.json.decode(seen.spec.template, type=Template)
        judged = {n.metadata.name: judge(template, n) for n in lab.process.controller.nodes.values()}
        if node not in judged or not judged[node].should_run:
            return
        known = [p for p in lab.process.controller.pods.by_index("owner", seen.metadata.uid) if p.target_node == node]
        there = [*lab.live(node), *(p for p in known if is_ready(p) and not p.deleting)]
        if any(p.metadata.uid != pod.metadata.uid for p in there):
            return  # one of several: another one is there, or was until somebody else took it away
        self.taken.add(node)
        wanted = [name for name, verdict in judged.items() if verdict.should_run]
        unavailable, surge = limits(seen.rolling, len(wanted))
        allowed = 0 if surge else unavailable
        out = sorted((self.taken - lab.late_nodes) & set(wanted))
        assert len(out) <= allowed, f"{out} are without a pod at a time, {allowed} may be"


def _is_in_place(write: Write) -> bool:
    """Whether a pod gets another image: until it is ready again, that is as good as a deletion."""
    return write.verb == "patch" and (write.before or {}).get("spec") != (write.after or {}).get("spec")


def check_pods(lab: Lab) -> None:
    """What must be so when nothing moves any more, also where a rollout is held back."""
    pods, wanted = lab.own(lab.all(PODS, Pod)), set(lab.wanted())
    per_node = Counter(p.target_node for p in pods if not p.terminal)
    assert all(count == 1 for count in per_node.values()), per_node
    assert wanted <= set(per_node), (wanted, per_node)


def check_settled(lab: Lab) -> None:
    """What must be so when nothing moves any more."""
    ds = lab.ds
    assert ds is not None
    pods, wanted = lab.own(lab.all(PODS, Pod)), lab.wanted()
    revisions = [r for r in lab.all(CONTROLLERREVISIONS, Revision) if owner_of(r.metadata).uid == ds.metadata.uid]
    wish = canonical_bytes(lab.template())
    current = [r for r in revisions if canonical_bytes(template_of(r)) == wish]
    assert len(current) == 1, current
    assert all(r.revision < current[0].revision for r in revisions if r is not current[0])
    per_node = Counter(p.target_node for p in pods)
    assert all(count == 1 for count in per_node.values()), per_node
    assert set(wanted) <= set(per_node), (wanted, per_node)
    assert all(is_available(p, ds.spec.min_ready_seconds, lab.now) for p in pods), pods
    carried = {p.metadata.labels.get(HASH_LABEL) for p in pods}
    if ds.spec.update_strategy.type == "RollingUpdate":
        updated = {p.target_node for p in pods if p.metadata.labels.get(HASH_LABEL) == current[0].hash}
        assert updated >= set(wanted)
    limit = 10 if ds.spec.revision_history_limit is None else ds.spec.revision_history_limit
    spared = {r.hash for r in revisions if r.hash in carried or r.hash == ds.status.current_revision}
    assert len(revisions) - 1 <= max(limit, len(spared)), [r.hash for r in revisions]
    _check_status(lab, ds, pods, wanted, current[0])


def _check_status(lab: Lab, ds: DaemonSet, pods: list[Pod], wanted: list[str], current: Revision) -> None:
    on = {p.target_node: p for p in pods}
    status = ds.status
    updated = sum(on[n].metadata.labels.get(HASH_LABEL) == current.hash for n in wanted)
    assert status.observed_generation == ds.metadata.generation
    assert status.desired_number_scheduled == status.current_number_scheduled == len(wanted)
    assert status.number_ready == status.number_available == len(wanted)
    assert status.number_unavailable == 0
    assert status.updated_number_scheduled == updated
    assert status.number_misscheduled == len(set(on) - set(wanted))
    if lab.kind.kind.extensions:
        assert status.update_revision == current.hash
        (ready,) = [c for c in status.conditions if c.type == "Ready"]
        assert ready.status == ("True" if updated == len(wanted) else "False")
