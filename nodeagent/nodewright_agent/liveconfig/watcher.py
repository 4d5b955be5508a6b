"""Follows NodeAgentConfigs and the labels of one Node, hands settings to those who apply them, and reports."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from nodewright.kube.api.nodeconfigs import FIELDS, NodeAgentConfig
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.objects import Node
from nodewright.kube.resources import NODEAGENTCONFIGS, NODES
from nodewright_agent.liveconfig.merge import NOTHING, Merged, merge
from nodewright_agent.liveconfig.reporter import Reporter
from nodewright_agent.liveconfig.verdict import APPLIED, PROXY_APPLIED, ProxyFacts, Report
from nodewright_agent.proxy.wishes import MODE, SCHEDULER, Wish, Wishes

log = logging.getLogger(__name__)

PROXY_FIELDS = frozenset((MODE, SCHEDULER))
COALESCE = 0.05
"""Seconds to wait for more changes after the first."""
_OWN_RUNTIME = "nodewright://"


class Subscriber(Protocol):
    """Applies some of the settings."""

    fields: frozenset[str]
    """Which ones, by path."""

    def apply(self, merged: Merged) -> Mapping[str, str]:
        """Take over the settings, or go back to the file's where none is there; quick, and may be called twice.

        Gives the fields that could not be applied, with the reason.
        """


class LiveConfig:
    """The NodeAgentConfigs of one node, as one process applies them. `run` does everything."""

    def __init__(
        self,
        client: Client,
        node_name: str,
        component: str,
        *,
        subscribers: Sequence[Subscriber] = (),
        wishes: Wishes | None = None,
        proxy_elsewhere: str = "",
        reporter: Reporter | None = None,
    ) -> None:
        """`component` is agent or proxy. `wishes` are of the proxy in this process.

        `proxy_elsewhere` says who else obeys the proxy's fields. The client must be allowed to list and watch
        NodeAgentConfigs and Nodes, and to patch the status of NodeAgentConfigs.
        """
        self.merged = NOTHING
        self._component, self._subscribers, self._wishes = component, list(subscribers), wishes
        self._proxy_elsewhere = proxy_elsewhere
        self._reporter = reporter or Reporter(client, component, node_name)
        self._configs: WatchCache[NodeAgentConfig] = WatchCache(client, NODEAGENTCONFIGS, type=NodeAgentConfig)
        self._nodes: WatchCache[Node] = WatchCache(
            client, NODES, type=Node, field_selector=f"metadata.name={node_name}", name="node-of-config"
        )
        self._node: Node | None = None
        self._problems: dict[str, str] = {}
        self._applied = False
        self._wake = asyncio.Event()
        self._configs.add_handler(lambda _old, _new: self._wake.set())
        self._nodes.add_handler(self._node_changed)
        if wishes is not None:
            wishes.on_answer(self._wake.set)

    async def run(self) -> None:
        """Apply and report until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._configs.run())
            group.create_task(self._nodes.run())
            await self._configs.wait_synced()
            await self._nodes.wait_synced()
            self._wake.set()
            pause: float | None = None
            while True:
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    pass  # a report is due
                await asyncio.sleep(COALESCE)
                self._wake.clear()
                pause = await self._step()

    async def _step(self) -> float | None:
        if self._node is None:
            # Not registered yet: without labels nothing can be said. An agent is about to do it, but a proxy may wait
            # for a kubelet that never comes, and Services with it.
            if self._wishes is not None and self._component == "proxy":
                self._wishes.want(Wish())
            return None
        merged = merge(self._configs.values(), self._node.metadata.labels)
        if not self._applied or merged.settings != self.merged.settings:
            self._apply(merged)
        self.merged, self._applied = merged, True
        if self._wishes is not None and self._wishes.pending:
            return None  # its answer wakes us
        condition = PROXY_APPLIED if self._beside_agent() else APPLIED
        return await self._reporter.report(list(self._configs.values()), merged, self._report(), condition)

    def _apply(self, merged: Merged) -> None:
        log.info("settings by NodeAgentConfig", extra={"settings": {k: v.value for k, v in merged.settings.items()}})
        self._problems = {}
        for subscriber in self._subscribers:
            self._problems.update(subscriber.apply(merged))
        if self._wishes is not None:
            mode = merged.settings.get(MODE)
            source = mode.source if mode is not None else ""
            self._wishes.want(Wish(merged.get(MODE), merged.get(SCHEDULER), source))

    def _report(self) -> Report:
        concerned = frozenset[str]().union(*(each.fields for each in self._subscribers))
        problems = dict(self._problems)
        proxy = None
        if self._wishes is not None:
            concerned |= PROXY_FIELDS
            answer = self._wishes.answer
            if answer is not None:
                proxy = ProxyFacts(answer.choice.mode, answer.choice.reason, answer.scheduler)
                problems.update(answer.problems)
            else:
                problems.update(dict.fromkeys(PROXY_FIELDS, f"no proxy runs: {self._wishes.failure}"))
        return Report(concerned, self._elsewhere(), problems, proxy)

    def _elsewhere(self) -> dict[str, str]:
        if self._component == "agent":
            served = self._wishes is not None or not self._proxy_elsewhere
            return {} if served else dict.fromkeys(PROXY_FIELDS, self._proxy_elsewhere)
        who = "the node's agent obeys them" if self._beside_agent() else "this node's kubelet is not Nodewright's"
        return {field: who for field in FIELDS if field not in PROXY_FIELDS}

    def _beside_agent(self) -> bool:
        """Tell whether this is a proxy whose Node is an agent's: then the agent has the say about `Applied`."""
        info = self._node.status.node_info if self._node is not None else None
        return (
            self._component == "proxy" and info is not None and info.container_runtime_version.startswith(_OWN_RUNTIME)
        )

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            return  # deleted: its labels stay what they were until there are others
        before, self._node = self._node, new
        if before is None or before.metadata.labels != new.metadata.labels or before.metadata.uid != new.metadata.uid:
            self._wake.set()
