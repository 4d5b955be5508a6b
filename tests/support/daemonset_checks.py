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
- A node loses its pod only after it has pulled the new image, where that is asked for, and has one puller at most.
- Left in peace it settles: one available pod of the newest template per node that should have one, of the node's
  class, the status says what is so, one revision holds the template, the history is no longer than asked, no puller is
  left; and then another controller that starts with no memory finds nothing to write.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from nodewright.controllers.daemonset.caches import puller_owner
from nodewright.controllers.daemonset.canonical import canonical_bytes
from nodewright.controllers.daemonset.claims import controller as owner_of
from nodewright.controllers.daemonset.eligibility import judge
from nodewright.controllers.daemonset.model import HASH_LABEL, DaemonSet, Pod, Revision, Template
from nodewright.controllers.daemonset.pods import is_ready
from nodewright.controllers.daemonset.revisions import template_of
from nodewright.controllers.daemonset.rollout import limits
from nodewright.kube.resources import CONTROLLERREVISIONS, PODS
from nodewright.kube.times import seconds_since
from support.daemonset_kubelets import does_its_work, is_puller, works_since
from support.fake_cluster import Object, Write

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
        if is_puller(write.after or write.before or {}):
            self._puller(write)
        elif write.verb == "create":
            self._created(write)
        elif write.before is not None and (write.verb == "delete" or _is_in_place(write)):
            self._deleted(write)

    def _other(self, write: Write) -> None:
        if write.plural == "pods" and write.after is not None:
            pod = msgspec.json.decode(msgspec.json.encode(write.after), type=Pod)
            if does_its_work(write.after) and not pod.deleting:
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

    def _puller(self, write: Write) -> None:
        lab = self._lab
        pod = msgspec.json.decode(msgspec.json.encode(write.after or write.before), type=Pod)
        seen = lab.process.controller.daemonsets.get(KEY)
        ref = puller_owner(pod.metadata)
        assert seen is not None
        assert ref is None or ref.uid == seen.metadata.uid, f"puller {pod.key} of {ref} is written"
        if write.verb == "create" and not lab.lates and not lab.has_late_writes:
            there = [
                p.key for p in lab.pullers() if p.target_node == pod.target_node and puller_owner(p.metadata) == ref
            ]
            assert not there, f"a puller is made for {pod.target_node}, where {there} are"

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
        if node in lab.late_nodes or not is_available(lab, write.before or {}, seen) or pod.deleting:
            return
        template = msgspec.json.decode(seen.spec.template, type=Template)
        judged = {n.metadata.name: judge(template, n) for n in lab.process.controller.nodes.values()}
        if node not in judged or not judged[node].should_run:
            return
        known = [p for p in lab.process.controller.pods.by_index("owner", seen.metadata.uid) if p.target_node == node]
        there = [*lab.live(node), *(p for p in known if _seems_to_work(p, seen) and not p.deleting)]
        if any(p.metadata.uid != pod.metadata.uid for p in there):
            return  # one of several: another one is there, or was until somebody else took it away
        self._pulled(seen, node)
        self.taken.add(node)
        wanted = [name for name, verdict in judged.items() if verdict.should_run]
        unavailable, surge = limits(seen.rolling, len(wanted))
        allowed = 0 if surge else unavailable
        out = sorted((self.taken - lab.late_nodes) & set(wanted))
        assert len(out) <= allowed, f"{out} are without a pod at a time, {allowed} may be"

    def _pulled(self, seen: DaemonSet, node: str) -> None:
        """With pre-pull a pod goes only where the new image is, unless all go back."""
        rolling, rollout = seen.rolling, seen.status.rollout
        if rolling.pre_pull is None or (rollout and rollout.failed_revision and rolling.on_failure == "Rollback"):
            return
        image = msgspec.json.decode(seen.spec.template)["spec"]["containers"][0]["image"]
        assert image in self._lab.kubelets.pulled[node], f"{node} loses its pod, and does not have {image}"


def is_available(lab: Lab, pod: Object, ds: DaemonSet) -> bool:
    """Whether it has done its work for minReadySeconds, or has run."""
    needed = 0 if lab.run_once else ds.spec.min_ready_seconds
    return does_its_work(pod) and (needed <= 0 or seconds_since(works_since(pod), lab.now) >= needed)


def _seems_to_work(pod: Pod, ds: DaemonSet) -> bool:
    return pod.status.phase == "Succeeded" if ds.spec.run_once else is_ready(pod)


def _is_in_place(write: Write) -> bool:
    """Whether a pod gets another image: until it is ready again, that is as good as a deletion."""
    return write.verb == "patch" and (write.before or {}).get("spec") != (write.after or {}).get("spec")


def check_pods(lab: Lab) -> None:
    """What must be so when nothing moves any more, also where a rollout is held back."""
    pods, wanted = lab.own(lab.all(PODS, Pod)), set(lab.wanted())
    ended = ("Failed",) if lab.run_once else ("Failed", "Succeeded")
    running = [p for p in pods if p.status.phase not in ended]
    per_node = Counter(p.target_node for p in running)
    for node, count in per_node.items():
        assert count == 1 or _is_surging(lab, [p for p in running if p.target_node == node]), per_node
    assert wanted <= set(per_node), (wanted, per_node)


def _is_surging(lab: Lab, pods: list[Pod]) -> bool:
    """Whether an old pod works and a new one does not (yet, or ever, when its image is bad): a surge stays so."""
    rolling = lab.spec.get("updateStrategy", {}).get("rollingUpdate") or {}
    return bool(rolling.get("maxSurge")) and sorted(
        does_its_work(lab.server.objects["pods"][pod.key]) for pod in pods
    ) == [False, True]


def has_size(lab: Lab, node: str, pod: Object) -> bool:
    """Whether a pod has the environment that the node's class asks for."""
    labels = lab.server.objects["nodes"][node]["metadata"]["labels"].items()
    fitting = [o for o in lab.spec.get("nodeOverrides") or [] if o["nodeSelector"]["matchLabels"].items() <= labels]
    env = fitting[0]["containers"][0]["env"] if fitting else []
    return all((container.get("env") or []) == env for container in pod["spec"]["containers"])


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
    raw = {p.target_node: lab.server.objects["pods"][p.key] for p in pods}
    assert all(is_available(lab, pod, ds) for pod in raw.values()), pods
    assert not lab.pullers(), lab.pullers()
    carried = {p.metadata.labels.get(HASH_LABEL) for p in pods}
    if ds.spec.update_strategy.type == "RollingUpdate":
        updated = {p.target_node for p in pods if p.metadata.labels.get(HASH_LABEL) == current[0].hash}
        assert updated >= set(wanted)
        for node in wanted:
            assert [c["image"] for c in raw[node]["spec"]["containers"]] == [lab.image], raw[node]
            assert has_size(lab, node, raw[node]), raw[node]
    limit = 10 if ds.spec.revision_history_limit is None else ds.spec.revision_history_limit
    spared = {r.hash for r in revisions if r.hash in carried or r.hash == ds.status.current_revision}
    assert len(revisions) - 1 <= max(limit, len(spared)), [r.hash for r in revisions]
    _check_status(lab, ds, pods, wanted, current[0])


def _check_status(lab: Lab, ds: DaemonSet, pods: list[Pod], wanted: list[str], current: Revision) -> None:
    on = {p.target_node: p for p in pods}
    status = ds.status
    has_its_size = {n for n in wanted if has_size(lab, n, lab.server.objects["pods"][on[n].key])}
    updated = sum(on[n].metadata.labels.get(HASH_LABEL) == current.hash for n in has_its_size)
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
