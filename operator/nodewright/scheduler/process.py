"""The scheduler as a process: configuration, leadership, probes, and an orderly end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import uuid
from collections.abc import Sequence
from pathlib import Path

import msgspec

from nodewright.framework.health import HealthServer
from nodewright.framework.leader import LeaderElector
from nodewright.kube.client import Client
from nodewright.kube.config import Config, load

from .profile import DEFAULT_SCHEDULER_NAME, PluginRef, Plugins, PluginSet, Profile, ProfileConfig
from .profiles import ProfileSet, ProfileWatcher
from .registry import Registry
from .service import Scheduler
from .warnings import Warnings

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-system"
LEASE_NAME = "nodewright-scheduler"


class Options(msgspec.Struct, kw_only=True):
    """How the process runs. `plugins` are enabled in every profile of the command line, on top of the defaults.

    `metrics_port` 0 takes any free port, None serves neither probes nor metrics.
    """

    kubeconfig: Path | None = None
    scheduler_names: Sequence[str] = (DEFAULT_SCHEDULER_NAME,)
    plugins: Sequence[PluginRef] = ()
    leader_elect: bool = True
    lease_namespace: str = LEASE_NAMESPACE
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = 0
    identity: str = ""


def base_profiles(options: Options, registry: Registry) -> dict[str, Profile]:
    """The profiles that the command line asks for. Raises ProfileError."""
    extra = PluginSet(enabled=list(options.plugins))
    return {
        name: Profile(ProfileConfig(scheduler_name=name, plugins=Plugins(multi_point=extra)), registry)
        for name in options.scheduler_names
    }


class SchedulerProcess:
    """One run of the scheduler. `config` replaces loading `options.kubeconfig`."""

    def __init__(self, options: Options, config: Config | None = None, registry: Registry | None = None) -> None:
        """Raises ProfileError and ConfigError."""
        self._options = options
        registry = registry or Registry()
        base = base_profiles(options, registry)
        self.identity = options.identity or f"{socket.gethostname()}_{uuid.uuid4()}"
        # Bindings bound the number of connections; the server's own fairness does the rest.
        self._client = Client(config or load(options.kubeconfig), user_agent="nodewright-scheduler")
        self._warnings = Warnings(self._client, f"{self.identity[:120]}")
        self.scheduler = Scheduler(self._client, base, identity=self.identity[:120], warn=self._warnings.warn)
        self._profiles = ProfileWatcher(self._client, ProfileSet(base, registry), self.scheduler.serve)
        self._leading: LeaderElector | None = None
        self.health: HealthServer | None = None

    async def run(self) -> None:
        """Run until cancelled. Raises LeadershipLost when another process may have taken over."""
        try:
            await self._serve_health()
            await self._follow_and_lead()
        except BaseExceptionGroup as errors:
            raise _first(errors) from errors  # callers tell LeadershipLost and OSError apart
        finally:
            await self._warnings.close()
            if self.health is not None:
                await self.health.stop()
            await self._client.close()

    async def _follow_and_lead(self) -> None:
        async with asyncio.TaskGroup() as group:
            following = [
                group.create_task(self.scheduler.follow(), name="follow"),
                group.create_task(self._profiles.run(), name="profiles"),
            ]
            try:
                await self._lead()
            finally:
                for task in following:
                    task.cancel()

    async def _lead(self) -> None:
        if not self._options.leader_elect:
            await self._schedule()
            return
        self._leading = LeaderElector(self._client, self._options.lease_namespace, LEASE_NAME, self.identity)
        await self._leading.run(self._schedule)

    async def _schedule(self) -> None:
        self._profiles.lead()
        await self.scheduler.schedule()

    async def _serve_health(self) -> None:
        if self._options.metrics_port is None:
            return
        self.health = HealthServer(self._options.metrics_host, self._options.metrics_port)
        self.health.add_live("ping", lambda: None)
        self.health.add_ready("caches", lambda: None if self.scheduler.has_synced else "not synced")
        await self.health.start()
        log.info("serving probes and metrics", extra={"port": self.health.port})


def _first(errors: BaseException) -> BaseException:
    """The error that began it: tasks that end because of it come after."""
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors


def run(options: Options) -> None:
    """Run in the foreground until SIGTERM or SIGINT. Raises what made it fail."""

    async def main() -> None:
        task = asyncio.ensure_future(SchedulerProcess(options).run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            log.info("stopped", extra={"pid": os.getpid()})

    asyncio.run(main())
