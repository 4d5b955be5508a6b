"""The operator process: kopf's operator around controllers.

kopf starts and stops everything, provides the signal handling and serves our custom resources; its startup handler
brings up, in this order: the wait for our CustomResourceDefinitions, caches (a standby keeps them warm), leadership,
workers. Only then does kopf begin to serve custom resources, so they too are handled by the leader alone. Probes and
the admission webhook are served before and beside all that, by every replica.
docs/decisions/0002-kopf-and-watch-caches.md and 0003-own-webhook-server.md tell why.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec

from nodewright.framework import logs
from nodewright.framework.controller import Controller
from nodewright.framework.definitions import Definitions
from nodewright.framework.health import HealthServer
from nodewright.framework.leader import LeaderElector, LeadershipLost
from nodewright.framework.lean import kopf
from nodewright.framework.settings import kopf_settings
from nodewright.framework.webhook.options import WebhookOptions
from nodewright.framework.webhook.review import Reviewer
from nodewright.kube.client import Client
from nodewright.kube.config import Config, load

if TYPE_CHECKING:
    from nodewright.framework.webhook.service import WebhookService

log = logging.getLogger(__name__)

STOP_GRACE = 5.0  # seconds that running reconciliations get to end by themselves


class Options(msgspec.Struct, kw_only=True):
    """How the process runs. `metrics_port` 0 takes any free port, None serves neither probes nor metrics."""

    kubeconfig: Path | None = None
    leader_elect: bool = True
    lease_namespace: str = "kube-system"
    lease_name: str = "nodewright-operator"
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = 0
    identity: str = ""
    webhook: WebhookOptions | None = None
    exit_timeout: float | None = None  # seconds after a signal until the process is killed; None in tests: never


# Makes the webhook's reviewers by path, with the client of the process.
MakeReviewers = Callable[[Client], Mapping[str, Reviewer]]


class Operator:
    """One run of the process. `controllers` are factories, called with (client, identity=...)."""

    def __init__(
        self,
        options: Options,
        controllers: Sequence[Callable[..., Controller]],
        config: Config | None = None,
        reviewers: MakeReviewers | None = None,
    ) -> None:
        """`config` replaces loading `options.kubeconfig`; `reviewers` are wanted where `options.webhook` is set."""
        self.options = options
        self.identity = options.identity or f"{socket.gethostname()}_{uuid.uuid4()}"
        self.health: HealthServer | None = None
        self.webhook: WebhookService | None = None
        self.elector: LeaderElector | None = None
        self.started = asyncio.Event()  # set when the workers run
        self._config = config
        self._factories = controllers
        self._make_reviewers = reviewers
        self._definitions: Definitions | None = None
        self._controllers: list[Controller] = []
        self._client: Client | None = None
        self._stop = asyncio.Event()
        self._closing = False
        self._background: list[asyncio.Task[None]] = []
        self._workers: list[asyncio.Task[None]] = []
        self._failure: BaseException | None = None
        self._elected: asyncio.Task[None] | None = None
        self._kopf_sessions: list[aiohttp.ClientSession] = []

    async def run(self) -> None:
        """Run until a signal, `stop` or a failure. Raises what made it fail, LeadershipLost included."""
        config = self._config or load(self.options.kubeconfig)
        self._client = Client(config, user_agent="nodewright-operator")
        try:
            self._controllers = [make(self._client, identity=self.identity) for make in self._factories]
            self._definitions = Definitions(self._client, {k for c in self._controllers for k in c.custom_kinds()})
            # before kopf, which would wrap an address in use in a traceback
            await self._serve_health()
            await self._serve_webhook()
            await kopf.operator(
                registry=self._registry(config),
                settings=kopf_settings(self.options.exit_timeout),
                clusterwide=True,
                standalone=True,  # our Lease decides, not kopf's peering
                stop_flag=self._stop,
            )
        except Exception:
            if self._failure is None:  # else kopf's error only wraps it
                raise
        finally:
            await self._shut_down()
            for session in self._kopf_sessions:
                await session.close()
            await self._client.close()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Ask for an orderly end."""
        self._stop.set()

    def _registry(self, config: Config) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession:
            # Called again by kopf when the API server refuses the credentials; exec plugins then give new ones.
            if self._kopf_sessions:
                config.invalidate()
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=config.ssl_context or True),
                headers=await config.headers(),
                proxy=config.proxy_url,
            )
            self._kopf_sessions.append(session)
            return kopf.AiohttpSession(server=config.server, aiohttp_session=session)

        @kopf.on.startup(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
        async def startup(**_: Any) -> None:
            try:
                await self._start()
            except BaseException as error:
                if isinstance(error, Exception) and self._failure is None:
                    self._failure = error
                await self._shut_down()  # kopf does not run cleanup handlers when startup fails or is cancelled
                raise

        @kopf.on.cleanup(registry=registry)
        async def cleanup(**_: Any) -> None:
            await self._shut_down()

        for controller in self._controllers:
            controller.register_kopf(registry)
        return registry

    async def _start(self) -> None:
        assert self._definitions is not None
        await self._definitions.wait()
        caches = {id(cache): cache for controller in self._controllers for cache in controller.caches()}
        for cache in caches.values():
            self._spawn(cache.run(), f"cache {cache.name}")
        for controller in self._controllers:
            self._spawn(controller.events.run(), f"events of {controller.name}")
        for cache in caches.values():
            await cache.wait_synced()
        log.info("caches synced", extra={"caches": len(caches), "objects": sum(len(c) for c in caches.values())})
        if self.options.leader_elect:
            await self._lead()
        for controller in self._controllers:
            if not controller.workers:
                continue
            task = asyncio.create_task(controller.run_workers(), name=f"workers of {controller.name}")
            task.add_done_callback(self._ended)
            self._workers.append(task)
        # What is alive now stays alive: keep the collector from walking it again and again.
        gc.collect()
        gc.freeze()
        self.started.set()
        log.info("operator started", extra={"controllers": ",".join(c.name for c in self._controllers)})

    async def _serve_health(self) -> None:
        if self.options.metrics_port is None:
            return
        self.health = HealthServer(self.options.metrics_host, self.options.metrics_port)
        self.health.add_live("ping", lambda: None)
        self.health.add_ready("caches", self._unsynced)
        self.health.add_live("workers", self._dead_workers)
        await self.health.start()
        log.info("serving probes and metrics", extra={"address": f"{self.options.metrics_host}:{self.health.port}"})

    async def _serve_webhook(self) -> None:
        if self.options.webhook is None:
            return
        from nodewright.framework.webhook.service import WebhookService  # X.509 costs 8 MB

        assert self._client is not None
        assert self._make_reviewers is not None
        self.webhook = WebhookService(self._client, self.options.webhook, self._make_reviewers(self._client))
        await self.webhook.start()
        self._spawn(self.webhook.run(), "webhook")
        if self.health is not None:
            self.health.add_ready("webhook", self.webhook.trouble)

    def _unsynced(self) -> str | None:
        if self._definitions is not None and self._definitions.missing:
            return f"no CustomResourceDefinition yet: {', '.join(self._definitions.names())}"
        waiting = [cache.name for c in self._controllers for cache in c.caches() if not cache.has_synced]
        return f"not synced: {', '.join(dict.fromkeys(waiting))}" if waiting else None

    def _dead_workers(self) -> str | None:
        dead = [task.get_name() for task in (*self._workers, *self._background) if task.done()]
        return f"ended: {', '.join(dead)}" if dead else None

    async def _lead(self) -> None:
        assert self._client is not None
        o = self.options
        self.elector = LeaderElector(
            self._client,
            o.lease_namespace,
            o.lease_name,
            self.identity,
            lease_duration=o.lease_duration,
            renew_deadline=o.renew_deadline,
            retry_period=o.retry_period,
        )
        await self.elector.acquire()
        self._elected = asyncio.create_task(self.elector.renew_forever(), name="leader election")
        self._elected.add_done_callback(self._ended)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._background.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task that should run for ever ended: stop everything, at once where leadership is lost."""
        if task.cancelled() or self._closing or self._stop.is_set():
            return
        failure = task.exception() or RuntimeError(f"{task.get_name()} ended")
        self._failure = failure
        if isinstance(failure, LeadershipLost):
            for worker in self._workers:
                worker.cancel()
        log.error("stopping: %s: %s", task.get_name(), failure)
        self._stop.set()

    async def _shut_down(self) -> None:
        """Let running work end, post the events, release the Lease; safe to call again."""
        self._closing = True
        self._stop.set()  # after a signal kopf still has a task waiting for it, and would give that 5 s to end
        workers, self._workers = self._workers, []
        for controller in self._controllers:
            controller.queue.shut_down()
        if workers:
            _, late = await asyncio.wait(workers, timeout=STOP_GRACE)
            await _cancel(late)
        elected, self._elected = self._elected, None
        if elected is not None:
            await _cancel([elected])
        background, self._background = self._background, []
        if background:
            for controller in self._controllers:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(2.0):
                        await controller.events.flush()
            await _cancel(background)
        if self.elector is not None:
            await self.elector.release()
        if self.webhook is not None:
            await self.webhook.stop()
        if self.health is not None:
            await self.health.stop()


async def _cancel(tasks: Sequence[asyncio.Task[None]] | set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def run(
    options: Options, controllers: Sequence[Callable[..., Controller]], reviewers: MakeReviewers | None = None
) -> None:
    """Run the operator in the foreground until SIGTERM or SIGINT. Raises what made it fail."""
    logs.install()
    # One line per handled event at INFO is noise; failures come as warnings and errors.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.getLogger("kopf.activities").setLevel(logging.WARNING)

    async def main() -> None:
        await Operator(options, controllers, reviewers=reviewers).run()

    asyncio.run(main())
