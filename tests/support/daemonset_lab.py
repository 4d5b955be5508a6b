"""The real DaemonSet controller on a fake API server, with everything that can happen around it in a test's hands.

What is promised, and checked all the while, is told in `daemonset_checks`.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec

from nodewright.controllers.daemonset import controller as controller_module
from nodewright.controllers.daemonset import prepuller as prepuller_module
from nodewright.controllers.daemonset.apps import AppsDaemonSetController
from nodewright.controllers.daemonset.claims import controller as owner_of
from nodewright.controllers.daemonset.controller import DaemonSetController
from nodewright.controllers.daemonset.eligibility import judge
from nodewright.controllers.daemonset.extensions import RollingUpdate
from nodewright.controllers.daemonset.model import DaemonSet, Node, Pod, Template
from nodewright.controllers.daemonset.prepull import is_puller
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import PatchType
from nodewright.kube.codec import WatchEvent
from nodewright.kube.errors import ApiError
from nodewright.kube.resources import CONTROLLERREVISIONS, NODES, PODS
from nodewright.kube.times import format_rfc3339, parse_rfc3339
from support import daemonset_checks as checks
from support.daemonset_checks import KEY
from support.daemonset_kubelets import Kubelets
from support.fake_cluster import Died, FakeClient, FakeServer, Fault, Object

START = "2026-03-01T12:00:00Z"
_ROLLING = [field.encode_name for field in msgspec.structs.fields(RollingUpdate)]
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
        controller_module.time = prepuller_module.time = self  # type: ignore[assignment]
        self.server = FakeServer(lambda: format_rfc3339(self.now))
        self.path = self.kind.kind.resource.path("ns", "ds")
        self.image, self.selector = "v1", ""
        self.run_once = bool(spec.get("runOnce"))
        self.kubelets = Kubelets()
        for name, zone in zones.items():
            self.add_node(name, zone)
        self.late_nodes: set[str] = set()  # where a late write may land, or has
        self.lates = 0
        self.create_daemonset(**spec)
        self.server.on_write = checks.Watchdog(self)
        self.process = Process(self)

    def close(self) -> None:
        controller_module.time = prepuller_module.time = self._real_time
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
        """The DaemonSet's pods there that neither ended nor are being deleted; a run that is done is there, too."""
        found = [p for p in self.own(self.all(PODS, Pod)) if p.target_node == node and not p.deleting]
        return [p for p in found if not p.terminal or (self.run_once and p.status.phase == "Succeeded")]

    def pullers(self) -> list[Pod]:
        return [p for p in self.all(PODS, Pod) if is_puller(p)]

    @property
    def has_late_writes(self) -> bool:
        """Whether a write that nobody waits for any more may still take effect."""
        return bool(self._late_writes or self.process.client.late)

    def wanted(self) -> list[str]:
        assert self.ds is not None
        template = msgspec.json.decode(self.ds.spec.template, type=Template)
        return [n.metadata.name for n in self.all(NODES, Node) if judge(template, n).should_run]

    # -- people -------------------------------------------------------------------------------------------------------

    def template(self) -> Object:
        spec: Object = {"containers": [{"name": "c", "image": self.image}]}
        if self.selector:
            spec["nodeSelector"] = {"zone": self.selector}
        if self.run_once:
            spec["restartPolicy"] = "Never"
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
        if rolling := (spec.get("updateStrategy") or {}).get("rollingUpdate"):
            nulls = dict.fromkeys(name for name in _ROLLING if name not in rolling)
            spec["updateStrategy"] = {**spec["updateStrategy"], "rollingUpdate": {**rolling, **nulls}}
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
        policy = "Never" if self.run_once else "Always"
        spec: Object = {"nodeName": node, "containers": [], "restartPolicy": policy}
        self.server.do("POST", PODS.path("ns"), {"metadata": meta, "spec": spec})
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

    def resize(self, name: str, size: str | None) -> None:
        """Give the node a label that `nodeOverrides` can name."""
        if name in self.server.objects["nodes"]:
            self.server.do("PATCH", NODES.path(name=name), {"metadata": {"labels": {"size": size}}})

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
        status = self.kubelets.report(obj, pod.target_node or "", phase, format_rfc3339(self.now), ready=ready)
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
        """Peace until nothing moves, and the look at what has become of it all.

        A rollout that is held back, or was given up, has to come to rest, too; then it is let go on.
        """
        while self._late_writes:
            self.land()
        self.process.client.faults.clear()
        rolling = (self.spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
        extra = rolling.keys() - {"maxUnavailable", "maxSurge"}
        if self.spec.get("paused") or extra:
            self.rest()
            checks.check_pods(self)
            self.image = "v9" if extra else self.image
            free = {name: value for name, value in rolling.items() if name not in extra}
            self.edit(paused=False, updateStrategy={**self.spec["updateStrategy"], "rollingUpdate": free or None})
        self.kubelets.bad.clear()
        self.rest()
        checks.check_settled(self)
        self.restart()
        sent = self.process.client.sent
        for _ in range(5):
            self.calm()
        assert self.process.client.sent == sent, "a controller that starts finds something to write in a settled state"

    def rest(self) -> None:
        """Peace until nothing moves."""
        for _ in range(200):
            before = self.server.version
            self.collect_garbage()
            self.calm()
            if self.server.version == before and not self.process.queue.waiting:
                if (wait := self.process.seconds_to_wait) is None:
                    return
                self.tick(wait)
        raise AssertionError("it never settles")


class AppsLab(Lab):
    """The same with an apps/v1 DaemonSet."""

    kind = AppsDaemonSetController
