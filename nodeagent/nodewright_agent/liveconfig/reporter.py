"""Keeps this node's entry in the status of every NodeAgentConfig that selects it, by server-side apply."""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Callable, Iterable

import msgspec

from nodewright.kube.api.nodeconfigs import NodeAgentConfig, NodeEntry
from nodewright.kube.backoff import Backoff
from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError, NotFound
from nodewright.kube.resources import NODEAGENTCONFIGS
from nodewright.kube.times import now_rfc3339
from nodewright_agent.liveconfig.merge import Merged
from nodewright_agent.liveconfig.verdict import Report, entry, outcome, own_part

log = logging.getLogger(__name__)

SECONDS_PER_NODE, LONGEST_JITTER = 0.02, 30.0
"""All nodes hear of a change at the same moment, and all of them write to one object."""
_LONGEST_MANAGER = 128


def field_manager(component: str, node: str) -> str:
    """Give the name under which one process owns its entry: of its own for each process and node.

    Two processes with one name would each remove what the other one has applied.
    """
    name = f"nodewright-{component}/{node}"
    if len(name) <= _LONGEST_MANAGER:
        return name
    return f"nodewright-{component}/{hashlib.sha256(node.encode()).hexdigest()[:40]}"


def jitter(config: NodeAgentConfig) -> float:
    """Give how many seconds to wait before writing, at random; longer the more nodes the object has."""
    nodes = max(config.status.selected, len(config.status.nodes))
    return random.uniform(0, min(LONGEST_JITTER, nodes * SECONDS_PER_NODE))


class Reporter:
    """Compares what the objects say of this node with what they should, and writes the difference, and only that."""

    def __init__(
        self,
        client: Client,
        component: str,
        node: str,
        *,
        delay: Callable[[NodeAgentConfig], float] = jitter,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], str] = now_rfc3339,
    ) -> None:
        """Write as `component` (agent or proxy) of `node`."""
        self._client, self._node, self._manager = client, node, field_manager(component, node)
        self._delay, self._clock, self._now = delay, clock, now
        self._due: dict[str, float] = {}
        self._answers: dict[str, NodeAgentConfig] = {}
        self._backoffs: dict[str, Backoff] = {}

    async def report(
        self, configs: Iterable[NodeAgentConfig], merged: Merged, report: Report, condition: str
    ) -> float | None:
        """Write what is due; gives the seconds after which to be called again, None when nothing waits.

        `condition` is the type of the condition that this process owns. Failures are logged, and tried again.
        """
        left = [self._newest(config) for config in configs]
        names = {config.metadata.name for config in left}
        for known in (self._due, self._answers, self._backoffs):
            for name in known.keys() - names:
                del known[name]
        for config in left:
            name = config.metadata.name
            body = self._wanted(config, merged, report, condition)
            if body is None:
                self._due.pop(name, None)
                continue
            due = self._due.setdefault(name, self._clock() + self._delay(config))
            if due <= self._clock():
                await self._write(config, body)
        return max(0.0, min(self._due.values()) - self._clock()) if self._due else None

    def _newest(self, config: NodeAgentConfig) -> NodeAgentConfig:
        """Give our own write's answer while the watch does not show it yet."""
        answer = self._answers.get(config.metadata.name)
        if answer is None:
            return config
        if answer.metadata.uid == config.metadata.uid and _version(answer) > _version(config):
            return answer
        del self._answers[config.metadata.name]
        return config

    def _wanted(
        self, config: NodeAgentConfig, merged: Merged, report: Report, condition: str
    ) -> dict[str, object] | None:
        """Give what to apply; None where the object says it already."""
        meta = config.metadata
        owner = any(one.manager == self._manager for one in meta.managed_fields)
        before = next((one for one in config.status.nodes if one.name == self._node), None)
        meant = meta.name in merged.selected or meta.name in merged.invalid
        nodes: list[NodeEntry] = []
        if meant:
            wanted = entry(
                self._node,
                meta.generation,
                outcome(meta.name, merged, report),
                report,
                before,
                self._now(),
                condition,
            )
            part = own_part(before, condition, proxy=report.proxy is not None) if before is not None else None
            if owner and part == wanted:
                return None
            nodes = [wanted]
        elif not owner:
            return None
        body: dict[str, object] = {
            "apiVersion": config.API_VERSION,
            "kind": config.KIND,
            # the UID: an object that was deleted and made anew is another one
            "metadata": {"name": meta.name, "uid": meta.uid},
        }
        if nodes:  # without a status, all that this manager owns goes: its entry
            body["status"] = {"nodes": msgspec.to_builtins(nodes)}
        return body

    async def _write(self, config: NodeAgentConfig, body: dict[str, object]) -> None:
        name = config.metadata.name
        backoff = self._backoffs.setdefault(name, Backoff(1.0, 60.0))
        try:
            answer = await self._client.apply(
                NODEAGENTCONFIGS, body, field_manager=self._manager, type=NodeAgentConfig, subresource="status"
            )
        except NotFound:
            self._due.pop(name, None)  # the watch is about to say so
        except ApiError as error:
            pause = backoff.next()
            self._due[name] = self._clock() + pause
            log.warning("cannot report to NodeAgentConfig %s: %s; trying again in %.0f s", name, error, pause)
        else:
            self._due.pop(name, None)
            self._backoffs.pop(name, None)
            self._answers[name] = answer
            log.info("reported to NodeAgentConfig", extra={"object": name, "removed": "status" not in body})


def _version(config: NodeAgentConfig) -> int:
    return int(config.metadata.resource_version or 0)
