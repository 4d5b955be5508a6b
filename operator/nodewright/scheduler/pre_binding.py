"""What plugins have to do between a decision and its binding, and gangs whose members must all get that far.

Most Pods need none of it and go straight to the binder.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from nodewright.kube.client import Client

from . import metrics
from .attempts import Attempt
from .binder import Binding
from .gang import GangSpec
from .plugin import Plugin, PluginError
from .profile import Profile
from .state import ClusterState

log = logging.getLogger(__name__)


class GangIncompleteError(Exception):
    """Another member of the gang did not get through; `str()` says which gang."""


Failed = Callable[[Binding, Exception], None]


class PreBinding:
    """Runs plugins' `pre_bind`, then hands bindings on. A gang's are handed on together or not at all.

    `on_failed(binding, error)` is called for those that do not get there.
    """

    def __init__(
        self, client: Client, state: ClusterState, submit: Callable[[Binding], None], on_failed: Failed
    ) -> None:
        self._client = client
        self._state = state
        self._submit = submit
        self._on_failed = on_failed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._gathering: list[tuple[Attempt, Binding]] = []

    def __len__(self) -> int:
        """How many Pods are waited for."""
        return len(self._tasks)

    def start(self, attempt: Attempt, binding: Binding, profile: Profile) -> None:
        """Take a decision on its way; returns at once. Call it in a running loop."""
        if attempt.gang is None:
            plugins = _wanting(profile, binding)
            if plugins:
                self._spawn(binding, self._run_alone(binding, plugins))
            else:
                self._submit(binding)
            return
        # The members of a gang come one after another, without anything in between.
        self._gathering.append((attempt, binding))
        if len(self._gathering) == attempt.together:
            bindings = [each for _, each in self._gathering]
            self._gathering = []
            self._start_gang(attempt.gang, bindings, profile)

    def forget(self, uid: str) -> None:
        """The Pod is gone: nobody waits for it any more."""
        task = self._tasks.pop(uid, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """End what is under way; a restart takes it up again."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- inside --------------------------------------------------------------------------------------------------

    def _spawn(self, binding: Binding, work: Coroutine[Any, Any, None]) -> None:
        uid = binding.queued.pod.uid
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[uid] = task
        task.add_done_callback(lambda done: self._tasks.pop(uid, None) if self._tasks.get(uid) is done else None)

    async def _run_alone(self, binding: Binding, plugins: Sequence[Plugin]) -> None:
        error = await self._run(binding, plugins)
        if error is None:
            self._submit(binding)
        else:
            self._on_failed(binding, error)

    def _start_gang(self, gang: GangSpec, bindings: list[Binding], profile: Profile) -> None:
        wanting = {id(binding): _wanting(profile, binding) for binding in bindings}
        if not any(wanting.values()):
            for binding in bindings:
                self._submit(binding)
            return
        results: dict[int, asyncio.Future[Exception | None]] = {}
        loop = asyncio.get_running_loop()
        for binding in bindings:
            results[id(binding)] = loop.create_future()
            self._spawn(binding, self._run_member(binding, wanting[id(binding)], results, gang))

    async def _run_member(
        self,
        binding: Binding,
        plugins: Sequence[Plugin],
        results: dict[int, asyncio.Future[Exception | None]],
        gang: GangSpec,
    ) -> None:
        own = results[id(binding)]
        error: Exception | None = GangIncompleteError(f"{gang.title}: a member is gone")
        try:
            async with asyncio.timeout(gang.timeout):
                error = await self._run(binding, plugins)
        except TimeoutError:
            error = GangIncompleteError(f"{gang.title}: not ready within {gang.timeout} s")
        finally:
            own.set_result(error)
        if error is None:
            waited = metrics.now()
            others = await asyncio.gather(*results.values())
            error = next((other for other in others if other is not None), None)
            status = metrics.SUCCESS if error is None else metrics.UNSCHEDULABLE
            metrics.PERMIT_WAIT.labels(status).observe(metrics.now() - waited)
        if error is None:
            self._submit(binding)
        else:
            self._on_failed(binding, error)

    async def _run(self, binding: Binding, plugins: Sequence[Plugin]) -> Exception | None:
        """Run all plugins in order; the first failure, or None."""
        started = metrics.now()
        error = await self._run_all(binding, plugins)
        status = metrics.SUCCESS if error is None else metrics.ERROR
        metrics.POINT_DURATION.labels(metrics.PRE_BIND, status, binding.profile).observe(metrics.now() - started)
        return error

    async def _run_all(self, binding: Binding, plugins: Sequence[Plugin]) -> Exception | None:
        pod = binding.queued.pod
        for plugin in plugins:
            try:
                await plugin.pre_bind(pod, binding.node, self._state, self._client)
            except Exception as error:  # a plugin's fault stays its Pod's problem, whatever it raises
                log.info("not bound", extra={"pod": pod.key, "plugin": plugin.name, "error": str(error)})
                return PluginError(plugin.name, "pre_bind", error)
        return None


def _wanting(profile: Profile, binding: Binding) -> list[Plugin]:
    return [plugin for plugin in profile.pre_binders if _wants(plugin, binding)]


def _wants(plugin: Plugin, binding: Binding) -> bool:
    try:
        return plugin.wants_pre_bind(binding.queued.pod)
    except Exception:  # whoever cannot say is asked
        log.exception("plugin failed", extra={"plugin": plugin.name, "point": "wants_pre_bind"})
        return True
