"""The real DaemonSet controller on a fake API server, with everything that can happen around it in a test's hands.

What is promised, and checked at every write that the controller makes (`_Watchdog`) and at the end (`settle`):

- A pod is created on a node only where no other live one of the DaemonSet is there in truth, unless pods may surge.
  The one excuse is a write that the server carries out after its sender has given up on it and looked again, or has
  died: nobody can know of it in time. The doubles that come of that vanish.
- Of nodes that should have a pod, no more than maxUnavailable are without a ready one because the controller deleted
  it, and where pods may surge none; whatever the caches show of kubelets' doings, and however late.
- Only pods and revisions that the DaemonSet controls are deleted, and no revision whose hash a pod of it carries.
  (A DaemonSet that was deleted, leaving its pods as orphans, goes on until the controller sees it.)
- Left in peace it settles: one available pod of the newest template per node that should have one, the status says
  what is so, one revision holds the template, the history is no longer than asked; and then another controller that
  starts with no memory finds nothing to write.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import msgspec

from nodewright.controllers.daemonset import controller as controller_module
from nodewright.controllers.daemonset.canonical import canonical_bytes
from nodewright.controllers.daemonset.claims import controller as owner_of
from nodewright.controllers.daemonset.controller import DaemonSetController
from nodewright.controllers.daemonset.eligibility import judge
from nodewright.controllers.daemonset.model import HASH_LABEL, DaemonSet, Node, Pod, Revision, Template
from nodewright.controllers.daemonset.pods import is_available, is_ready
from nodewright.controllers.daemonset.revisions import template_of
from nodewright.controllers.daemonset.rollout import limits
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import PatchType
from nodewright.kube.codec import WatchEvent
from nodewright.kube.errors import ApiError
from nodewright.kube.resources import CONTROLLERREVISIONS, NODES, PODS
from nodewright.kube.times import format_rfc3339, parse_rfc3339
from support.fake_cluster import Died, FakeClient, FakeServer, Fault, Object, Write

KEY = "ns/ds"
START = "2026-03-01T12:00:00Z"
_HURRY = 3  # steps without seeing anything new of pods


class Keys:
    """In place of the work queue: which keys are to be looked at."""

    def __init__(self) -> None:
        self.waiting: set[str] = set()

    def add(self, key: str) -> None:
        self.waiting.add(key)


class Process:
    """A controller with its caches. It sees what `deliver` lets it see."""

    def __init__(self, lab: Lab) -> None:
        self.client = FakeClient(lab.server)
        self.controller = lab.make_controller(self.client)
        self.queue = Keys()
        self.controller.queue = self.queue  # type: ignore[assignment]
        self.caches: dict[str, WatchCache[Any]] = {c.resource.plural: c for c in self.controller.caches()}
        self._lab = lab
        self._cursor: dict[str, int] = {}
        self.due: float | None = None  # when the controller asked to be called again
        for plural, cache in self.caches.items():
            lab.run(cache._list())
            self._cursor[plural] = len(lab.server.log[plural])

    def behind(self, plural: str) -> int:
        """How many changes of this kind it has not seen yet."""
        return len(self._lab.server.log[plural]) - self._cursor[plural]

    def deliver(self, plural: str, count: int = 1) -> None:
        """Let it see the next changes of this kind."""
        for _ in range(min(count, self.behind(plural))):
            version, type_, body = self._lab.server.log[plural][self._cursor[plural]]
            self._cursor[plural] += 1
            cache = self.caches[plural]
            cache._apply(WatchEvent(type_, msgspec.json.decode(body, type=cache._type), str(version)))

    def deliver_all(self) -> None:
        for plural in self.caches:
            self.deliver(plural, 1 << 30)

    @property
    def seconds_to_wait(self) -> float | None:
        """Until it looks again by itself."""
        return None if self.due is None else max(0.0, self.due - self._lab.seconds)

    def step(self) -> bool:
        """Take the key from the queue, where it is and may be worked on, and reconcile; False when it has not."""
        if self.due is not None and self.due <= self._lab.seconds:
            self.due = None
            self.queue.add(KEY)
        if KEY not in self.queue.waiting or not self.controller.guard.is_ready(KEY):
            return False
        self.queue.waiting.discard(KEY)
        try:
            result = self._lab.run(self.controller.reconcile(KEY))
        except ApiError:
            self.queue.add(KEY)
        else:
            if result is not None and result.requeue_after is not None:
                when = self._lab.seconds + result.requeue_after
                self.due = when if self.due is None else min(self.due, when)
        return True


class Lab:
    """A cluster with a DaemonSet `ns/ds`, and its controller."""

    kind: type[DaemonSetController] = DaemonSetController

    def __init__(self, zones: dict[str, str], **spec: Any) -> None:
        """Nodes and their zones; `spec` is the DaemonSet's, but for selector and template."""
        self._runner = asyncio.Runner()
        self._late_writes: list[Any] = []
        self.problem: AssertionError | None = None  # what the watchdog found
        self.now = parse_rfc3339(START)
        self.seconds = 1000.0
        self._real_time = controller_module.time
        controller_module.time = self  # type: ignore[assignment]
        self.server = FakeServer(lambda: format_rfc3339(self.now))
        self.path = self.kind.kind.resource.path("ns", "ds")
        self.image, self.selector = "v1", ""
        for name, zone in zones.items():
            self.add_node(name, zone)
        self.late_nodes: set[str] = set()  # where a late write may land, or has
        self.lates = 0
        self.create_daemonset(**spec)
        self.server.on_write = Watchdog(self)
        self.process = Process(self)

    def close(self) -> None:
        controller_module.time = self._real_time
        self._runner.close()

    def monotonic(self) -> float:
        """In place of time.monotonic for the controller."""
        return self.seconds

    def make_controller(self, client: FakeClient) -> DaemonSetController:
        return self.kind(client, now=lambda: self.now)

    def run(self, work: Any) -> Any:
        return self._runner.run(work)

    def tick(self, seconds: float) -> None:
        """Let time go by."""
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds

    # -- what is so ---------------------------------------------------------------------------------------------------

    def all(self, resource: Any, type_: Any) -> list[Any]:
        found = self.server.objects[resource.plural]
        return [msgspec.json.decode(msgspec.json.encode(found[key]), type=type_) for key in sorted(found)]

    @property
    def ds(self) -> DaemonSet | None:
        found = self.server.objects["daemonsets"].get(KEY)
        return msgspec.json.decode(msgspec.json.encode(found), type=DaemonSet) if found else None

    def own(self, pods: list[Pod]) -> list[Pod]:
        uid = self.ds.metadata.uid if self.ds else ""
        return [p for p in pods if (ref := owner_of(p.metadata)) is not None and ref.uid == uid]

    def live(self, node: str) -> list[Pod]:
        """The DaemonSet's pods there that neither ended nor are being deleted."""
        found = self.own(self.all(PODS, Pod))
        return [p for p in found if p.target_node == node and not p.terminal and not p.deleting]

    def wanted(self) -> list[str]:
        assert self.ds is not None
        template = msgspec.json.decode(self.ds.spec.template, type=Template)
        return [n.metadata.name for n in self.all(NODES, Node) if judge(template, n).should_run]

    # -- people -------------------------------------------------------------------------------------------------------

    def template(self) -> Object:
        spec: Object = {"containers": [{"name": "c", "image": self.image}]}
        if self.selector:
            spec["nodeSelector"] = {"zone": self.selector}
        return {"metadata": {"labels": {"app": "a"}}, "spec": spec}

    def create_daemonset(self, **spec: Any) -> None:
        self.spec = spec
        body = {
            "metadata": {"name": "ds"},
            "spec": {"selector": {"matchLabels": {"app": "a"}}, "template": self.template(), **spec},
        }
        self.server.do("POST", self.kind.kind.resource.path("ns"), body)

    def edit(self, **spec: Any) -> None:
        self.spec |= spec
        if self.ds is not None:
            template = {**self.template(), "spec": {"nodeSelector": None, **self.template()["spec"]}}
            self.server.do("PATCH", self.path, {"spec": {"template": template, **spec}})

    def recreate(self, *, orphan: bool) -> None:
        """The DaemonSet is deleted, its dependents orphaned or left to the garbage collector, and made anew at once."""
        if self.ds is None:
            return
        uid = self.ds.metadata.uid
        if orphan:
            for plural in ("pods", "controllerrevisions"):
                for key, obj in list(self.server.objects[plural].items()):
                    refs = obj["metadata"].get("ownerReferences") or []
                    if any(ref["uid"] == uid for ref in refs):
                        patch = {"metadata": {"ownerReferences": [{"$patch": "delete", "uid": uid}]}}
                        self.server.do("PATCH", self._path(plural, key), patch, PatchType.STRATEGIC)
        self.server.do("DELETE", self.path)
        self.create_daemonset(**self.spec)

    def add_pod(self, name: str, node: str, *, owner: str = "") -> None:
        """A running pod that the selector matches, of nobody or of another owner."""
        key = f"ns/{name}"
        if key in self.server.objects["pods"]:
            return
        meta: Object = {"name": name, "labels": {"app": "a"}}
        if owner:
            ref = {"apiVersion": "v1", "kind": "Other", "name": owner, "uid": owner, "controller": True}
            meta["ownerReferences"] = [ref]
        self.server.do("POST", PODS.path("ns"), {"metadata": meta, "spec": {"nodeName": node, "containers": []}})
        self.kubelet(key, "Running", ready=True)

    def label(self, key: str, value: str) -> None:
        self.server.do("PATCH", self._path("pods", key), {"metadata": {"labels": {"app": value}}})

    def delete_pod(self, key: str) -> None:
        self.server.do("DELETE", self._path("pods", key))

    # -- nodes --------------------------------------------------------------------------------------------------------

    def add_node(self, name: str, zone: str) -> None:
        if name not in self.server.objects["nodes"]:
            self.server.do("POST", NODES.path(), {"metadata": {"name": name, "labels": {"zone": zone}}, "spec": {}})

    def remove_node(self, name: str) -> None:
        """The node goes, and its pods with it (pod garbage collection)."""
        if self.server.objects["nodes"].get(name):
            self.server.do("DELETE", NODES.path(name=name))
            for key, pod in list(self.server.objects["pods"].items()):
                if pod["spec"].get("nodeName") == name:
                    self.server.finish("pods", key)

    def taint(self, name: str, effect: str | None) -> None:
        if name in self.server.objects["nodes"]:
            taints = [{"key": "dedicated", "value": "x", "effect": effect}] if effect else []
            self.server.do("PATCH", NODES.path(name=name), {"spec": {"taints": taints}})

    # -- scheduler, kubelets, garbage collector -----------------------------------------------------------------------

    def kubelet(self, key: str, phase: str = "Running", *, ready: bool = True) -> None:
        """Bind the pod if it is not; take it out if it is being deleted; else report its state."""
        obj = self.server.objects["pods"][key]
        pod = msgspec.json.decode(msgspec.json.encode(obj), type=Pod)
        if pod.deleting:
            if not obj["metadata"].get("finalizers"):
                self.server.finish("pods", key)
            return
        if pod.terminal:
            return
        if not pod.spec.node_name:
            if pod.target_node not in self.server.objects["nodes"]:
                return
            self.server.do("PATCH", self._path("pods", key), {"spec": {"nodeName": pod.target_node}})
        value = "True" if ready and phase == "Running" else "False"
        before = (obj.get("status") or {}).get("conditions") or [{}]
        since = before[0].get("lastTransitionTime") if before[0].get("status") == value else None
        condition = {"type": "Ready", "status": value, "lastTransitionTime": since or format_rfc3339(self.now)}
        status = {"phase": phase, "conditions": [condition]}
        self.server.do("PATCH", self._path("pods", key) + "/status", {"status": status})

    def collect_garbage(self) -> None:
        """Delete what belongs to a DaemonSet that is gone."""
        uid = self.ds.metadata.uid if self.ds else ""
        for plural in ("pods", "controllerrevisions"):
            for key, obj in list(self.server.objects[plural].items()):
                refs = obj["metadata"].get("ownerReferences") or []
                if any(ref["kind"] == "DaemonSet" and ref["uid"] != uid for ref in refs):
                    self.server.do("DELETE", self._path(plural, key))

    @staticmethod
    def _path(plural: str, key: str) -> str:
        namespace, name = key.split("/")
        return {"pods": PODS, "controllerrevisions": CONTROLLERREVISIONS}[plural].path(namespace, name)

    # -- the controller -----------------------------------------------------------------------------------------------

    def fault(self, number: int, fault: Fault) -> None:
        """Let the n-th write from now (0 is the next) go wrong."""
        self.process.client.faults[number] = fault

    def step(self) -> bool:
        """One pass of the controller. If it died of it, another one starts, and lists."""
        done = self._try_step()
        self._late_writes += self.process.client.late
        self.process.client.late = []
        if self.problem is not None:
            raise self.problem
        if self.process.client.dead:
            self.restart()
        return done

    def _try_step(self) -> bool:
        try:
            return self.process.step()
        except Died:
            return True

    def restart(self) -> None:
        """Another process takes over."""
        self.process.client.dead = True
        self.process = Process(self)

    def land(self) -> None:
        """A write that nobody waits for any more takes effect."""
        if self._late_writes:
            self.lates += 1
            self._late_writes.pop(0)()

    # -- peace --------------------------------------------------------------------------------------------------------

    def calm(self) -> None:
        """All is well for a moment: kubelets do their work, the controller sees everything and has the time to act.

        Before that it acts, if it may, on what it has seen so far of pods: nothing new.
        """
        for _ in range(_HURRY):
            for plural in ("nodes", "daemonsets", "controllerrevisions"):
                self.process.deliver(plural, 1 << 30)
            if not self.step():
                break
        for key in sorted(self.server.objects["pods"]):
            self.kubelet(key)
        self.process.deliver_all()
        if not self._late_writes:
            self.late_nodes = {node for node in self.late_nodes if len(self.live(node)) != 1}
        self.tick(6)
        self.step()

    def settle(self) -> None:
        """Peace until nothing moves, and the look at what has become of it all."""
        while self._late_writes:
            self.land()
        self.process.client.faults.clear()
        if self.spec.get("paused") or self.ds is None:
            self.edit(paused=False)
        for _ in range(200):
            before = self.server.version
            self.collect_garbage()
            self.calm()
            if self.server.version == before and not self.process.queue.waiting:
                if (wait := self.process.seconds_to_wait) is None:
                    break
                self.tick(wait)
        else:
            raise AssertionError("it never settles")
        check_settled(self)
        self.restart()
        sent = self.process.client.sent
        for _ in range(5):
            self.calm()
        assert self.process.client.sent == sent, "a controller that starts finds something to write in a settled state"


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
        elif write.verb == "delete" and write.before is not None:
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
        if node in lab.late_nodes or not is_ready(pod) or pod.deleting:
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
