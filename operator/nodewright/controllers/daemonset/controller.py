"""The DaemonSet controller: reads the caches, asks the pure rules, carries out what they say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar

import msgspec

from nodewright.controllers.daemonset import status
from nodewright.controllers.daemonset.actions import PodActions, reference
from nodewright.controllers.daemonset.backoff import FailureBackoff
from nodewright.controllers.daemonset.caches import Caches
from nodewright.controllers.daemonset.claims import controller
from nodewright.controllers.daemonset.decide import decide
from nodewright.controllers.daemonset.eligibility import Verdict
from nodewright.controllers.daemonset.history import HistoryKeeper, NotYet
from nodewright.controllers.daemonset.kinds import NODEWRIGHT, Kind
from nodewright.controllers.daemonset.model import (
    GENERATION_ANNOTATION,
    DaemonSet,
    Meta,
    Node,
    Pod,
    Revision,
)
from nodewright.controllers.daemonset.ownership import Ownership
from nodewright.controllers.daemonset.placement import Placement
from nodewright.controllers.daemonset.pods import group, ready_since
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
        self.daemonsets = self.watch(
            self.kind.resource,
            type=DaemonSet,
            indexes={"namespace": lambda ds: (ds.metadata.namespace,)},
        )
        self._shared = Caches.of(client)
        self.nodes = self.share(self._shared.nodes, enqueue=self._for_node)
        self.pods = self.share(self._shared.pods, enqueue=self._for_owned)
        self.revisions = self.share(self._shared.revisions, enqueue=self._for_owned)
        self._placement = Placement()
        self._backoff = FailureBackoff()
        self._ownership = Ownership(client, self.kind, self.guard)
        self._history = HistoryKeeper(client, self.kind, self.guard, self.daemonsets, self.revisions, self.pods)
        self._actions = PodActions(client, self.kind, self.pods, self.guard, self.events)

    # -- from changes to keys --------------------------------------------------------------------------------------

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
        ref = controller(meta)
        if ref is None or ref.kind != self.kind.resource.kind:
            return None
        ds = self.daemonsets.get(f"{meta.namespace}/{ref.name}")
        return ds if ds is not None and ds.metadata.uid == ref.uid else None

    def _for_node(self, old: Node | None, new: Node | None) -> Iterable[str]:
        """DaemonSets for which the node's change makes a difference; a node that is gone may leave pods behind."""
        if old and new and old.metadata.labels == new.metadata.labels and old.spec.taints == new.spec.taints:
            return ()
        keys: list[str] = []
        for ds in self.daemonsets.values():
            before = self._placement.judge(ds, old) if old else None
            after = self._placement.judge(ds, new) if new else None
            if _pair(before) != _pair(after):
                keys.append(ds.key)
        return keys

    # -- reconciliation --------------------------------------------------------------------------------------------

    async def reconcile(self, key: str) -> Result | None:
        """One pass of upstream's syncDaemonSet, in its order."""
        ds = self.daemonsets.get(key)
        if ds is None:
            self.guard.forget(key)
            self._placement.forget(key)
            return None
        if ds.metadata.deletion_timestamp is not None:
            return None
        selector = ds.spec.selector
        if not selector.match_labels and not selector.match_expressions:
            message = "This daemon set is selecting all pods. A non-empty selector is required."
            self.events.event(reference(self.kind, ds), "Warning", "SelectingAll", message)
            return None
        pods = await self._claim_pods(ds)
        mine = await self._ownership.claim(
            ds, self._candidates(ds, self.revisions), CONTROLLERREVISIONS, self.revisions, Revision
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
        failure: Exception | None = None
        try:
            await self._carry_out(view, decision)
            needed = {ds.status.current_revision, decision.targets.stable}
            await self._history.clean(ds, old, pods, needed)
        except ApiError as error:
            failure = error
        await self._write_status(view, decision, failure)
        if failure is not None:
            raise failure
        wait = _until_available(pods, ds.spec.min_ready_seconds, view.now)
        decision.plan.retry(wait)
        after = decision.plan.retry_after
        return Result(requeue_after=after) if after is not None else None

    def _view(self, ds: DaemonSet, current: Revision, old: Sequence[Revision], pods: list[Pod]) -> View:
        return View(
            ds=ds,
            update=current,
            revisions={revision.hash: revision for revision in (*old, current)},
            nodes={node.metadata.name: node for node in self.nodes.values()},
            verdicts=self._placement.verdicts(ds, self.nodes.values()),
            pods=group(pods),
            now=self._now(),
            template_generation=self._generation(ds),
        )

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
        if not plan.is_empty:
            factory = PodFactory(self.kind.resource, view, decision.targets)
            await self._actions.apply(view.ds, factory, plan.create, plan.delete)

    async def _claim_pods(self, ds: DaemonSet) -> list[Pod]:
        return await self._ownership.claim(ds, self._candidates(ds, self.pods), PODS, self.pods, Pod)

    @staticmethod
    def _candidates(ds: DaemonSet, cache: Any) -> list[Any]:
        """What the DaemonSet owns, and the orphans of its namespace."""
        return [
            *cache.by_index("owner", ds.metadata.uid),
            *cache.by_index("owner", f"orphans/{ds.metadata.namespace}"),
        ]

    async def _write_status(self, view: View, decision: Decision, failure: Exception | None) -> None:
        ds, meta = view.ds, view.ds.metadata
        counted = status.compute(view, decision.targets)
        if self.kind.extensions:
            counted = status.with_rollout(counted, view, decision)
            trouble = ("SyncFailed", str(failure)) if failure is not None else None
            counted = status.with_ready(counted, meta.generation, trouble, view.now)
        counted.observed_generation = meta.generation
        if counted == ds.status:
            return
        wire: dict[str, Any] = msgspec.to_builtins(counted)
        # collisionCount is counted elsewhere, under a precondition; writing it here could undo that.
        for field in ("collisionCount", *(() if self.kind.extensions else status.EXTENSIONS)):
            del wire[field]
        body = {"metadata": {"uid": meta.uid}, "status": wire}
        written = await self.client.patch(
            self.kind.resource, meta.name, body, meta.namespace, type=PartialObject, subresource="status"
        )
        self.guard.wrote(ds.key, self.daemonsets, written.metadata.resource_version)


def _pair(verdict: Verdict | None) -> tuple[bool, bool]:
    return (verdict.should_run, verdict.should_continue) if verdict is not None else (False, False)


def _until_available(pods: Iterable[Pod], min_ready_seconds: int, now: datetime) -> float | None:
    """Seconds until the next ready pod counts as available, for no event will tell."""
    if min_ready_seconds <= 0:
        return None
    left = [
        min_ready_seconds - seconds_since(since, now)
        for pod in pods
        if (since := ready_since(pod)) is not None and since
    ]
    waiting = [seconds for seconds in left if seconds > 0]
    return min(waiting) + 0.01 if waiting else None
