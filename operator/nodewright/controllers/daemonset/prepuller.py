"""Carrying out what `prepull` decides: pullers are made and deleted, and failed pulls told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from nodewright.controllers.daemonset import prepull
from nodewright.controllers.daemonset.actions import BURST, PodActions, reference, slow_start
from nodewright.controllers.daemonset.backoff import FailureBackoff
from nodewright.controllers.daemonset.kinds import Kind
from nodewright.controllers.daemonset.model import DaemonSet, Pod
from nodewright.controllers.daemonset.template import PodFactory
from nodewright.controllers.daemonset.view import Decision, View
from nodewright.framework.consistency import ConsistencyGuard
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.errors import Conflict, NotFound
from nodewright.kube.events import EventRecorder
from nodewright.kube.resources import PODS

log = logging.getLogger(__name__)


class PrePuller:
    """Keeps the pullers of DaemonSets."""

    def __init__(
        self,
        client: Client,
        kind: Kind,
        pods: WatchCache[Pod],
        guard: ConsistencyGuard,
        events: EventRecorder,
        actions: PodActions,
    ) -> None:
        """`pods` has the index `puller` (see `caches`); `guard` learns of every write; `actions` makes the pullers."""
        self._client = client
        self._kind = kind
        self._pods = pods
        self._guard = guard
        self._events = events
        self._actions = actions
        self._backoff = FailureBackoff()
        self._told: dict[str, tuple[str, set[str]]] = {}  # by DaemonSet: the revision, and the nodes told about

    def of(self, ds: DaemonSet) -> list[Pod]:
        """The DaemonSet's pullers, and those of one of its name that was deleted and left its pods as orphans."""
        orphans = self._pods.by_index("puller", f"orphans/{ds.metadata.namespace}")
        return [*self._pods.by_index("puller", ds.metadata.uid), *(p for p in orphans if prepull.is_for(p, ds))]

    def forget(self, key: str) -> None:
        """The DaemonSet is gone."""
        self._told.pop(key, None)

    async def apply(self, view: View, decision: Decision, factory: PodFactory) -> None:
        """Make the pullers that are wanted, delete those of no use, and tell what went wrong; raises the first failure.

        A puller that was evicted or refused is made anew, after a growing delay for which the plan's retry is set.
        """
        ds, plan, pullers = view.ds, decision.plan, self.of(view.ds)
        if not pullers and not plan.pre_pull:
            return
        gone = prepull.obsolete(view, decision.targets, pullers)
        for puller in pullers:
            left = prepull.seconds_to_schedule(puller, view.now)
            plan.retry(left if left is not None and left > 0 else None)
            if prepull.is_lost(puller) and not puller.deleting and puller not in gone:
                delay = self._gate(ds, puller)
                plan.retry(delay or None)
                if delay <= 0:
                    gone.append(puller)
        self._tell(view)
        errors: list[Exception] = []
        if decision.targets.hash == view.update.hash and plan.pre_pull:
            template, nodes = factory.template(view.update.hash), prepull.missing(plan.pre_pull, pullers)
            errors = await slow_start(nodes[:BURST], lambda node: self._create(view, template, node))
        errors += await self._delete_all(ds, gone)
        if errors:
            raise errors[0]

    def _gate(self, ds: DaemonSet, puller: Pod) -> float:
        now = time.monotonic()
        self._backoff.collect(now)
        return self._backoff.check((ds.metadata.uid, puller.target_node), now)

    def _tell(self, view: View) -> None:
        """One event per node and revision: a pull is tried again and again, and fails with the same words."""
        revision, told = self._told.get(view.ds.key, ("", set()))
        if revision != view.update.hash:
            self._told[view.ds.key] = (view.update.hash, told := set())
        for node in sorted(view.pull_errors.keys() - told):
            told.add(node)
            text = f"Images of revision {view.update.hash} can't be pulled on node {node}: {view.pull_errors[node]}"
            self._events.event(reference(self._kind, view.ds), "Warning", "PrePullFailed", text)

    async def _create(self, view: View, template: prepull.Json, node: str) -> None:
        ds, resource = view.ds, self._kind.resource
        tolerated = view.own_taints.tolerated(view.nodes[node].spec.taints)
        body = prepull.puller_for(resource, ds, template, view.update.hash, node, tolerated)
        made = await self._actions.create(ds, body, "Error creating a pod that pulls images")
        if made is not None:
            log.info("pulls images ahead", extra={"pod": made.metadata.name})

    async def _delete_all(self, ds: DaemonSet, pods: Sequence[Pod]) -> list[Exception]:
        done = await asyncio.gather(*(self._delete(ds, pod) for pod in pods[:BURST]), return_exceptions=True)
        return [each for each in done if isinstance(each, Exception)]

    async def _delete(self, ds: DaemonSet, pod: Pod) -> None:
        meta = pod.metadata
        try:
            await self._client.delete(PODS, meta.name, meta.namespace, uid=meta.uid)
        except Conflict:
            self._guard.doubt(ds.key, self._pods)
            raise
        except NotFound:
            log.info("puller is gone already", extra={"pod": meta.name})
        self._guard.deleted(ds.key, self._pods, pod.key, meta.uid)
