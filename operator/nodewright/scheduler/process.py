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
from nodewright.kube.backoff import Backoff
from nodewright.kube.client import Client
from nodewright.kube.config import Config, load
from nodewright.kube.errors import ApiError

from .profile import DEFAULT_SCHEDULER_NAME, PluginRef, Plugins, PluginSet, Profile, ProfileConfig
from .profiles import ProfileSet, ProfileWatcher
from .registry import Registry
from .resource_metrics import resource_page
from .service import Scheduler
from .warnings import Warnings

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-system"
LEASE_NAME = "nodewright-scheduler"
# How long a new watch has to show what the old one missed.
CATCH_UP = 2.0


class Options(msgspec.Struct, kw_only=True):
    """How the process runs. `plugins` are enabled in every profile of the command line, on top of the defaults.

    `metrics_port` 0 takes any free port, None serves neither probes nor metrics. The times of the Lease are seconds.
    """

    kubeconfig: Path | None = None
    scheduler_names: Sequence[str] = (DEFAULT_SCHEDULER_NAME,)
    plugins: Sequence[PluginRef] = ()
    leader_elect: bool = True
    lease_namespace: str = LEASE_NAMESPACE
    lease_name: str = LEASE_NAME
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
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
        self.scheduler = Scheduler(
            self._client,
            base,
            identity=self.identity[:120],
            warn=self._warnings.warn,
            evicted=self._warnings.evicted,
        )
        self.scheduler.binder.seen = self.scheduler.pods.wait_for
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
        o = self._options
        if not o.leader_elect:
            await self._schedule()
            return
        elector = self._leading = LeaderElector(
            self._client,
            o.lease_namespace,
            o.lease_name,
            self.identity,
            lease_duration=o.lease_duration,
            renew_deadline=o.renew_deadline,
            retry_period=o.retry_period,
        )
        self.scheduler.binder.may_bind = lambda: elector.may_act
        await elector.run(self._take_over)

    async def _take_over(self) -> None:
        """Schedule as the leader. What a predecessor did up to its end must be known before."""
        if self.scheduler.has_synced:
            await self._catch_up()
        try:
            await self._schedule()
        finally:
            if self._leading is not None and not self.scheduler.binder.is_idle:
                self._leading.keep()  # a binding that was sent may still be stored: nobody may take over at once

    async def _catch_up(self) -> None:
        """A standby's watch may have died unnoticed; a list made from now on is as good."""
        backoff = Backoff(0.2, 2.0)
        while True:
            try:
                await asyncio.gather(
                    *(cache.catch_up(CATCH_UP) for cache in (self.scheduler.pods, self.scheduler.nodes))
                )
                return
            except ApiError as error:
                log.warning("cannot see what the last leader did", extra={"error": str(error)})
                await asyncio.sleep(backoff.next())

    async def _schedule(self) -> None:
        self._profiles.lead()
        await self.scheduler.schedule()

    async def _serve_health(self) -> None:
        if self._options.metrics_port is None:
            return
        self.health = HealthServer(self._options.metrics_host, self._options.metrics_port)
        self.health.add_live("ping", lambda: None)
        self.health.add_live("leaderElection", lambda: self._leading.trouble if self._leading else None)
        self.health.add_ready("caches", lambda: None if self.scheduler.has_synced else "not synced")
        scheduler = self.scheduler
        self.health.add_page(
            "/metrics/resources", lambda: resource_page(scheduler.pods.values(), scheduler.core.factory.info)
        )
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
