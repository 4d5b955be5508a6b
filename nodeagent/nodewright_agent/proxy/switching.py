"""Which backend a proxy has: the first one, and another one when somebody wishes so while it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from nodewright_agent.proxy.backends import make_backend
from nodewright_agent.proxy.backends.base import Backend, BackendOptions
from nodewright_agent.proxy.config import ProxyConfig
from nodewright_agent.proxy.detect import ORDER, PROBES, SHARED_ORDER, Choice, Probe, ProxyModeError, choose
from nodewright_agent.proxy.wishes import MODE, SCHEDULER, Answer, Wish, Wishes

log = logging.getLogger(__name__)

PATIENCE = 3.0
"""Seconds that a starting proxy waits for NodeAgentConfigs, so that it need not switch at once."""

Event = Callable[[str, str, str], None]
"""Reports `(type, reason, message)` about the node."""


class Switchable(Protocol):
    """What carries rules into the kernel and can change the backend under way (the Syncer)."""

    async def switch(self, backend: Backend, *, take_over: bool) -> None:
        """Program another backend, then remove the rules of the one before; raises what made it impossible."""


def scheduler_missing(name: str) -> str | None:
    """Give what is missing for an IPVS scheduler, None where the kernel has it. Blocks."""
    from nodewright_agent.proxy.backends.ipvs.schedulers import probe_scheduler

    return probe_scheduler(name)


class ModeSwitch:
    """Chooses backends by configuration and wishes. An impossible wish never costs the rules that work."""

    def __init__(
        self,
        config: ProxyConfig,
        wishes: Wishes,
        event: Event,
        *,
        probes: Mapping[str, Probe] = PROBES,
        scheduler_probe: Callable[[str], str | None] = scheduler_missing,
        make: Callable[[str, BackendOptions], Backend] = make_backend,
    ) -> None:
        """Nothing is chosen yet."""
        self._config, self._wishes, self._event = config, wishes, event
        self._probes, self._scheduler_probe, self._make = probes, scheduler_probe, make
        self._order = SHARED_ORDER if config.service_proxy_name else ORDER
        self.choice: Choice | None = None
        self.scheduler = ""
        self._said: dict[str, str] = {}

    async def first(self) -> Backend:
        """Choose the backend to start with. Raises ProxyModeError where neither the wish nor the configuration works.

        The wish is waited for a moment (`PATIENCE`), so that a restart keeps the mode that the node had.
        """
        wish = await self._wishes.first(PATIENCE)
        choice, scheduler, problems = await asyncio.to_thread(self._resolve, wish)
        self.choice, self.scheduler = choice, scheduler
        self._settle(wish, problems)
        return self._backend(choice, scheduler)

    async def follow(self, syncer: Switchable) -> None:
        """Carry out wishes until cancelled."""
        while True:
            await self.change(await self._wishes.next(), syncer)

    async def change(self, wish: Wish, syncer: Switchable) -> None:
        """Carry out one wish, and answer it."""
        assert self.choice is not None
        before, scheduler_before = self.choice, self.scheduler
        choice, scheduler, problems = await asyncio.to_thread(self._resolve, wish)
        if (choice.mode, scheduler) != (before.mode, scheduler_before):
            try:
                await syncer.switch(self._backend(choice, scheduler), take_over=choice.mode == before.mode)
            except Exception as error:  # whatever it was: the rules that worked still do, and that has to be said
                log.error("proxy mode was not switched", extra={"mode": choice.mode, "error": str(error)})
                field = SCHEDULER if choice.mode == before.mode else MODE
                problems[field] = f"{choice.mode} could not be programmed: {error}; {before.mode} stays in use"
                choice, scheduler = before, scheduler_before
            else:
                text = f"Services are programmed by {_text(choice.mode, scheduler)}: {choice.reason}"
                log.info("proxy mode switched", extra={"mode": choice.mode, "before": before.mode})
                self._event("Normal", "ProxyModeSwitched", f"{text} (before: {_text(before.mode, scheduler_before)})")
        self.choice, self.scheduler = choice, scheduler
        self._settle(wish, problems)

    def _backend(self, choice: Choice, scheduler: str) -> Backend:
        config = self._config
        options = BackendOptions(config.pod_cidrs, scheduler or config.ipvs_scheduler, config.ipv6)
        return self._make(choice.mode, options)

    def _resolve(self, wish: Wish) -> tuple[Choice, str, dict[str, str]]:
        """Find the best that can be had; blocks."""
        problems: dict[str, str] = {}
        choice = self._choose(wish, problems)
        if choice.mode != "ipvs":
            return choice, "", problems
        scheduler = wish.scheduler or self._config.ipvs_scheduler
        missing = self._scheduler_probe(scheduler)
        if missing is not None and wish.scheduler:
            scheduler = self.scheduler or self._config.ipvs_scheduler
            problems[SCHEDULER] = f"IPVS scheduler {wish.scheduler} cannot be used: {missing}; {scheduler} is used"
        return choice, scheduler, problems

    def _choose(self, wish: Wish, problems: dict[str, str]) -> Choice:
        if wish.mode is not None:
            try:
                choice = choose(wish.mode, self._probes, self._order)
            except ProxyModeError as error:
                kept = self.choice or choose(self._config.mode, self._probes, self._order)
                problems[MODE] = f"{error}; {kept.mode} is used"
                return kept
            explicit = wish.mode != "auto" and wish.source
            return Choice(choice.mode, f"chosen by NodeAgentConfig {wish.source}") if explicit else choice
        try:
            return choose(self._config.mode, self._probes, self._order)
        except ProxyModeError:
            if self.choice is None:
                raise
            return self.choice  # it worked when the proxy started; what works now is better than nothing

    def _settle(self, wish: Wish, problems: dict[str, str]) -> None:
        assert self.choice is not None
        for field, text in problems.items():
            if self._said.get(field) != text:
                self._event("Warning", "ProxyModeNotPossible", text)
        self._said = problems
        self._wishes.settle(Answer(wish, self.choice, self.scheduler, problems))


def _text(mode: str, scheduler: str) -> str:
    return f"{mode} ({scheduler})" if scheduler else mode
