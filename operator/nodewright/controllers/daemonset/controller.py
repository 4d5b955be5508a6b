"""The DaemonSet controller: reads the caches, asks the pure rules, carries out what they say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any, ClassVar

import msgspec

from nodewright.controllers.daemonset import conditions, prepull, status
from nodewright.controllers.daemonset.actions import PodActions, reference
from nodewright.controllers.daemonset.availability import ready_since
from nodewright.controllers.daemonset.backoff import FailureBackoff
from nodewright.controllers.daemonset.caches import Caches, puller_owner
from nodewright.controllers.daemonset.claims import controller
from nodewright.controllers.daemonset.decide import decide
from nodewright.controllers.daemonset.eligibility import Verdict
from nodewright.controllers.daemonset.history import HistoryKeeper, NotYet
from nodewright.controllers.daemonset.inplaceupdater import InPlaceUpdater
from nodewright.controllers.daemonset.kinds import NODEWRIGHT, Kind
from nodewright.controllers.daemonset.model import (
    GENERATION_ANNOTATION,
    DaemonSet,
    Meta,
    Node,
    Pod,
    Revision,
)
from nodewright.controllers.daemonset.nodeorder import NodeOrder
from nodewright.controllers.daemonset.overlaps import REASON, Overlaps, juniors, message
from nodewright.controllers.daemonset.ownership import Ownership
from nodewright.controllers.daemonset.owntaints import OwnTaints
from nodewright.controllers.daemonset.pace import Pace
from nodewright.controllers.daemonset.placement import Placement
from nodewright.controllers.daemonset.pods import group
from nodewright.controllers.daemonset.prepuller import PrePuller
from nodewright.controllers.daemonset.progress import is_noted
from nodewright.controllers.daemonset.sizes import class_of
from nodewright.controllers.daemonset.steps import selected
from nodewright.controllers.daemonset.template import PodFactory
from nodewright.controllers.daemonset.view import Decision, View
from nodewright.framework.controller import Controller, Result
from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError
from nodewright.kube.objects import PartialObject
from nodewright.kube.resources import CONTROLLERREVISIONS, PODS
from nodewright.kube.times import now as wall_clock
from nodewright.kube.times import seconds_since


class DaemonSetController(Controller):
    """Serves one DaemonSet kind; see `kinds`."""

    name: ClassVar[str] = NODEWRIGHT.controller
    kind: ClassVar[Kind] = NODEWRIGHT

    def __init__(self, client: Client, *, identity: str = "", now: Callable[[], datetime] = wall_clock) -> None:
        """`now` is the clock that readiness times are compared with."""
        super().__init__(client, identity=identity)
        self._now = now
        self._shared = Caches.of(client)
        self.daemonsets = self.share(self._shared.daemonsets(self.kind))
        # apps/v1 has neither nodeReadiness nor nodeDrain.
        self._node_order = NodeOrder(self.daemonsets, self._shared.pods) if self.kind.extensions else None
        self.daemonsets.add_handler(self._tell_others)
        self._overlaps = Overlaps(self._shared)
        self._shared.on_daemonset(self._tell_juniors)
        self.nodes = self.share(self._shared.nodes, enqueue=self._for_node)
        self.pods = self.share(self._shared.pods, enqueue=self._for_pod)
        self.revisions = self.share(self._shared.revisions, enqueue=self._for_owned)
        self._placement = Placement()
        self._backoff = FailureBackoff()
        self._pace = Pace()
        self._failing: dict[str, tuple[str, Set[str]]] = {}  # by DaemonSet: a revision, and where its pods fail
        self._ownership = Ownership(client, self.kind, self.guard)
        self._history = HistoryKeeper(client, self.kind, self.guard, self.daemonsets, self.revisions, self.pods)
        self._actions = PodActions(client, self.kind, self.pods, self.guard, self.events)
        self._in_place = InPlaceUpdater(client, self.kind, self.pods, self.guard, self.events, self._actions)
        self._pulls = PrePuller(client, self.kind, self.pods, self.guard, self.events, self._actions)

    # -- from changes to keys --------------------------------------------------------------------------------------

    def _tell_others(self, old: DaemonSet | None, new: DaemonSet | None) -> None:
        """Queue other DaemonSets to which this one's change matters."""
        for key in self._node_order.daemonset_changed(old, new) if self._node_order else ():
            self.queue.add(key)

    def _tell_juniors(self, old: DaemonSet | None, new: DaemonSet | None) -> None:
        """Queue those of our kind whose selector overlaps with this DaemonSet's, of whatever kind that is."""
        for key in juniors(old, new, lambda ds: list(self.daemonsets.by_index("namespace", ds.metadata.namespace))):
            self.queue.add(key)

    def _for_pod(self, old: Pod | None, new: Pod | None) -> Iterable[str]:
        """The owner, or those that may adopt; on a node being drained also those that go after this pod."""
        keys = self._for_owned(old, new)
        return [*keys, *self._node_order.pod_changed(old, new)] if self._node_order else keys

    def _for_owned(self, old: Any, new: Any) -> Iterable[str]:
        """The owner before and after; for orphans, every DaemonSet that may want to adopt them."""
        keys: set[str] = set()
        for obj in (old, new):
            if obj is not None and (ds := self._owner(obj.metadata)) is not None:
                keys.add(ds.key)
        if new is not None and controller(new.metadata) is None and new.metadata.deletion_timestamp is None:
            unchanged = (
                old is not None and old.metadata.labels == new.metadata.labels and controller(old.metadata) is None
            )
            if not unchanged:
                for ds in self.daemonsets.by_index("namespace", new.metadata.namespace):
                    if ds.spec.selector.matches(new.metadata.labels):
                        keys.add(ds.key)
        return keys

    def _owner(self, meta: Meta) -> DaemonSet | None:
        ref = controller(meta) or puller_owner(meta)
        if ref is None or ref.kind != self.kind.resource.kind:
            return None
        ds = self.daemonsets.get(f"{meta.namespace}/{ref.name}")
        return ds if ds is not None and ds.metadata.uid == ref.uid else None

    def _for_node(self, old: Node | None, new: Node | None) -> Iterable[str]:
        """DaemonSets for which the node's change makes a difference; a node that is gone may leave pods behind."""
        if old and new and old.metadata.labels == new.metadata.labels and old.spec.taints == new.spec.taints:
            return ()
        keys: list[str] = self._node_order.node_changed(old, new) if self._node_order else []
        for ds in self.daemonsets.values():
            own = self._own_taints(ds)
            before = self._placement.judge(ds, old, own) if old else None
            after = self._placement.judge(ds, new, own) if new else None
            if (
                _pair(before) != _pair(after)
                or _class(ds, old) != _class(ds, new)
                or selected(ds, old) != selected(ds, new)
            ):
                keys.append(ds.key)
        return keys

    def _own_taints(self, ds: DaemonSet) -> OwnTaints:
        return self._node_order.own_taints(ds) if self._node_order else OwnTaints()

    # -- reconciliation --------------------------------------------------------------------------------------------

    async def reconcile(self, key: str) -> Result | None:
        """One pass of upstream's syncDaemonSet, in its order."""
        ds = self.daemonsets.get(key)
        if ds is None:
            self.guard.forget(key)
            self._placement.forget(key)
            self._pulls.forget(key)
            self._overlaps.forget(key)
            self._failing.pop(key, None)
            self._pace.forget(key)
            self._actions.forget(key)
            return None
        if ds.metadata.deletion_timestamp is not None:
            return None
        selector = ds.spec.selector
        if not selector.match_labels and not selector.match_expressions:
            message = "This daemon set is selecting all pods. A non-empty selector is required."
            self.events.event(reference(self.kind, ds), "Warning", "SelectingAll", message)
            return None
        if wait := self._pace.wait(ds, time.monotonic()):
            return Result(requeue_after=wait)
        try:
            return await self._pass(ds)
        except Exception:
            self._pace.forget(key)
            raise

    async def _pass(self, ds: DaemonSet) -> Result | None:
        started = time.monotonic()
        if self.guard.in_doubt(ds.key, self.pods):
            known = [*self.pods.by_index("owner", ds.metadata.uid), *self._pulls.of(ds)]
            await self._ownership.look_again(ds, self.pods, known)
            if not self.guard.is_ready(ds.key):
                self.queue.add(ds.key)
                return None
        pods = await self._claim_pods(ds)
        self._pace.begun(ds, len(pods), started)
        mine = await self._ownership.claim(
            ds, self._candidates(ds, self.revisions), CONTROLLERREVISIONS, self.revisions, Revision, self._others(ds)
        )
        try:
            current, old = await self._history.current(ds, mine, pods)
        except NotYet as reason:
            self.log.info("%s", reason)
            return None
        return await self._sync(ds, current, old, pods)

    async def _sync(self, ds: DaemonSet, current: Revision, old: Sequence[Revision], pods: list[Pod]) -> Result | None:
        view = self._view(ds, current, old, pods)
        decision = decide(view, lambda node: self._failure_gate(ds, node))
        self._failing[ds.key] = (current.hash, decision.failing)
        if self.kind.extensions and not is_noted(view, decision.rollout):
            await self._write_status(view, decision, None)
            return None  # to be continued once that is seen
        failure: Exception | None = None
        try:
            await self._carry_out(view, decision)
            needed = {ds.status.current_revision, decision.targets.stable}
            await self._history.clean(ds, old, pods, needed)
        except ApiError as error:
            failure = error
        later = await self._write_status(view, decision, failure)
        if failure is not None:
            raise failure
        wait = _until_available(view, pods)
        decision.plan.retry(wait)
        if self.kind.extensions:
            decision.plan.retry(decision.late_in)  # nothing of apps/v1 depends on it
        decision.plan.retry(later)
        after = decision.plan.retry_after
        return Result(requeue_after=after) if after is not None else None

    def _view(self, ds: DaemonSet, current: Revision, old: Sequence[Revision], pods: list[Pod]) -> View:
        by_node = group(pods)
        now = self._now()
        pulls = prepull.survey(self._pulls.of(ds), current.hash, by_node, now)
        own = self._own_taints(ds)
        verdicts: Mapping[str, Verdict] = self._placement.verdicts(ds, self.nodes.values(), own)
        if self._node_order:
            verdicts = self._node_order.verdicts(ds, verdicts, pods)
        return View(
            ds=ds,
            update=current,
            revisions={revision.hash: revision for revision in (*old, current)},
            nodes={node.metadata.name: node for node in self.nodes.values()},
            verdicts=verdicts,
            own_taints=own,
            pods=by_node,
            now=now,
            template_generation=self._generation(ds),
            pulled=pulls.pulled,
            pull_errors=pulls.errors,
            failing=self._known_failing(ds, current),
        )

    def _known_failing(self, ds: DaemonSet, current: Revision) -> Set[str]:
        hash_value, nodes = self._failing.get(ds.key, ("", frozenset()))
        return nodes if hash_value == current.hash else frozenset()

    def _generation(self, ds: DaemonSet) -> str | None:
        return ds.metadata.annotations.get(GENERATION_ANNOTATION) if self.kind.template_generation else None

    def _failure_gate(self, ds: DaemonSet, node: str) -> float:
        now = time.monotonic()
        self._backoff.collect(now)
        return self._backoff.check((ds.metadata.uid, ds.status.observed_generation, node), now)

    async def _carry_out(self, view: View, decision: Decision) -> None:
        plan = decision.plan
        for event in plan.events:
            self.events.event(reference(self.kind, view.ds), event.type, event.reason, event.message)
        factory = PodFactory(self.kind.resource, view, decision.targets)
        if not plan.is_empty:
            await self._actions.apply(view.ds, factory, plan.create, plan.delete)
        if plan.in_place:
            await self._in_place.apply(view, decision.targets, factory, plan)
        await self._pulls.apply(view, decision, factory)

    async def _claim_pods(self, ds: DaemonSet) -> list[Pod]:
        candidates = self._candidates(ds, self.pods)
        return await self._ownership.claim(ds, candidates, PODS, self.pods, Pod, self._others(ds))

    def _others(self, ds: DaemonSet) -> list[DaemonSet]:
        return [other for _, other in self._shared.neighbours(ds)]

    @staticmethod
    def _candidates(ds: DaemonSet, cache: Any) -> list[Any]:
        """What the DaemonSet owns, and the orphans of its namespace."""
        return [
            *cache.by_index("owner", ds.metadata.uid),
            *cache.by_index("owner", f"orphans/{ds.metadata.namespace}"),
        ]

    def _overlap(self, ds: DaemonSet) -> tuple[str, str] | None:
        """What is to be said of selectors that overlap; an event says it once."""
        found = self._overlaps.elder(ds)
        text = message(*found) if found is not None else ""
        if self._overlaps.is_news(ds, found[1] if found is not None else None):
            self.events.event(reference(self.kind, ds), "Warning", REASON, text)
        return (REASON, text) if found is not None else None

    async def _write_status(self, view: View, decision: Decision, failure: Exception | None) -> float | None:
        """Write what has changed; gives the seconds until then where that may wait a little."""
        ds, meta = view.ds, view.ds.metadata
        counted = status.compute(view, decision.targets)
        overlap = self._overlap(ds)
        if self.kind.extensions:
            counted = status.with_rollout(counted, view, decision)
            trouble = ("SyncFailed", str(failure)) if failure is not None else None
            counted = status.with_ready(counted, meta.generation, trouble, view.now)
            counted = conditions.with_conditions(counted, view, decision, trouble or overlap)
        counted.observed_generation = meta.generation
        if counted == ds.status:
            return None
        if wait := self._pace.status_wait(ds, counted, time.monotonic()):
            return wait
        wire: dict[str, Any] = msgspec.to_builtins(counted)
        # collisionCount is counted elsewhere, under a precondition; writing it here could undo that.
        for field in ("collisionCount", *(() if self.kind.extensions else status.EXTENSIONS)):
            del wire[field]
        body = {"metadata": {"uid": meta.uid}, "status": wire}
        written = await self.client.patch(
            self.kind.resource, meta.name, body, meta.namespace, type=PartialObject, subresource="status"
        )
        self.guard.wrote(ds.key, self.daemonsets, written.metadata.resource_version)
        self._pace.status_written(ds, time.monotonic())
        for event in conditions.events(view, counted) if self.kind.extensions else ():
            self.events.event(reference(self.kind, ds), event.type, event.reason, event.message)
        return None


def _pair(verdict: Verdict | None) -> tuple[bool, bool]:
    return (verdict.should_run, verdict.should_continue) if verdict is not None else (False, False)


def _class(ds: DaemonSet, node: Node | None) -> str:
    return class_of(ds, node.metadata.labels) if node is not None else ""


def _until_available(view: View, pods: Iterable[Pod]) -> float | None:
    """Seconds until the next ready pod counts as available, for no event will tell."""
    needed = view.ds.spec.min_ready_seconds
    if needed <= 0:
        return None
    left = [needed - seconds_since(since, view.now) for pod in pods if (since := ready_since(view, pod))]
    waiting = [seconds for seconds in left if seconds > 0]
    return min(waiting) + 0.01 if waiting else None
