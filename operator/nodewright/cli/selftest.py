"""`nodewright selftest`: does an installed Nodewright do its work? What `helm test` runs, from inside a Pod."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from nodewright.cli import selftestobjects as objects
from nodewright.cli.output import TIMED_OUT, USAGE, CliError, RichProgress
from nodewright.cli.selftestobjects import Plan

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import aiohttp

    from nodewright.controlplane.progress import Step
    from nodewright.kube.client import Client
    from nodewright.kube.resources import Resource

Judge = Callable[[dict[str, Any] | None], str]
_PAUSE = 0.2  # seconds between requests to the Service while some node has not answered
_GONE_TIMEOUT = 60.0


def command(
    image: Annotated[
        str, typer.Option("--image", metavar="IMAGE", help="Image of the Pods that are made: this one.")
    ] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NS", help="Where they are made [default: the Pod's own].")
    ] = "",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What they are called.")] = "nodewright-selftest",
    scheduler_name: Annotated[
        str, typer.Option("--scheduler-name", metavar="NAME", help="The schedulerName to test.")
    ] = "nodewright",
    service_proxy_name: Annotated[
        str, typer.Option("--service-proxy-name", metavar="NAME", help="Label of the Service, for a scoped proxy.")
    ] = "",
    pull_policy: Annotated[str, typer.Option("--image-pull-policy", metavar="POLICY")] = "IfNotPresent",
    pull_secret: Annotated[list[str] | None, typer.Option("--image-pull-secret", metavar="NAME")] = None,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="For all of it.")] = 120.0,
    kubeconfig: Annotated[
        Path | None, typer.Option("--kubeconfig", metavar="FILE", help="The cluster to test.")
    ] = None,
    serve: Annotated[int, typer.Option("--serve", metavar="PORT", hidden=True)] = 0,
) -> None:
    """Place a Pod, run a DaemonSet, reach all of its Pods through a Service, and remove them again.

    Has to run where Services answer: in a Pod. Exit code 4: something did not work in time; the text says what.
    """
    if serve:
        asyncio.run(_serve(serve))
        return
    if not image:
        raise CliError("name the image of the Pods that are to be made", "nodewright selftest --image IMAGE", USAGE)
    from nodewright.kube.config import load

    config = load(kubeconfig)
    plan = Plan(
        name=name,
        namespace=namespace or config.namespace,
        image=image,
        scheduler=scheduler_name,
        proxy_name=service_proxy_name,
        pull_policy=pull_policy,
        pull_secrets=tuple(pull_secret or ()),
    )

    async def main() -> None:
        from nodewright.kube.client import Client

        async with Client(config, user_agent="nodewright-selftest") as client:
            await SelfTest(client, plan, RichProgress()).run(timeout)

    asyncio.run(main())


class SelfTest:
    """One run. Raises CliError that says which part does not work, and why."""

    def __init__(self, client: Client, plan: Plan, progress: RichProgress) -> None:
        """Take what to test with; nothing is made before `run`."""
        self._client = client
        self._plan = plan
        self._progress = progress
        self._last = "nothing was tried"

    async def run(self, timeout: float) -> None:
        """Test everything within `timeout` seconds, and leave nothing behind."""
        try:
            await self._remove()  # what a run that was killed may have left
            async with asyncio.timeout(timeout):
                await self._scheduled_pod()
                pods = await self._daemonset()
                await self._service(pods)
        except TimeoutError:
            raise CliError(
                f"after {timeout:.0f} s: {self._last}",
                "see kubectl describe and the logs of the component that the message points to",
                TIMED_OUT,
            ) from None
        finally:
            await self._remove()

    async def _scheduled_pod(self) -> None:
        from nodewright.kube.resources import PODS

        with self._progress.step(f"a Pod for the scheduler {self._plan.scheduler}") as step:
            await self._client.create(PODS, objects.pod(self._plan))
            found = await self._until(PODS, objects.trouble, step, "Pod")
            step.result(f"Ready on {found['spec']['nodeName']}")

    async def _daemonset(self) -> set[str]:
        """Names of the nodes whose Pods are to answer."""
        from nodewright.kube.resources import DAEMONSETS, PODS

        with self._progress.step("a DaemonSet") as step:
            await self._client.create(DAEMONSETS, objects.daemonset(self._plan))
            found = await self._until(DAEMONSETS, objects.missing, step, "DaemonSet")
            part = f"{objects.LABEL}={self._plan.name},{objects.LABEL}-part=daemonset"
            pods = await self._client.list(PODS, self._plan.namespace, label_selector=part)
            nodes = {pod["spec"]["nodeName"] for pod in pods.items if not objects.trouble(pod)}
            step.result(f"{found['status']['numberReady']} Pods on {', '.join(sorted(nodes))}")
            return nodes

    async def _service(self, nodes: set[str]) -> None:
        import aiohttp

        from nodewright.kube.resources import SERVICES

        with self._progress.step("a Service") as step:
            made = await self._client.create(SERVICES, objects.service(self._plan))
            address = made["spec"]["clusterIP"]
            url = f"http://[{address}]/" if ":" in address else f"http://{address}/"
            silent = set(nodes)
            # Each request a connection of its own: the choice of an endpoint is made when it is opened.
            connector = aiohttp.TCPConnector(force_close=True)
            limit = aiohttp.ClientTimeout(total=5)
            async with aiohttp.ClientSession(connector=connector, timeout=limit, trust_env=False) as session:
                while silent:
                    self._last = f"Service {address}: no answer from {', '.join(sorted(silent))}"
                    step.update(self._last)
                    silent.discard(await _ask(session, url))
                    await asyncio.sleep(_PAUSE)
            step.result(f"{address} answers from {len(nodes)} nodes")

    async def _until(self, resource: Resource, judge: Judge, step: Step, what: str) -> dict[str, Any]:
        """Follow the object of our name until `judge` has no complaint."""
        async with aclosing(self._states(resource)) as states:
            async for found in states:
                complaint = judge(found)
                if not complaint and found is not None:
                    return found
                self._last = f"{what} {self._plan.namespace}/{self._plan.name}: {complaint}"
                step.update(self._last)
        raise AssertionError("the states of an object do not end")

    async def _states(self, resource: Resource) -> AsyncGenerator[dict[str, Any] | None, None]:
        """The object as it changes; None while it is absent."""
        from nodewright.kube.errors import Gone, ServerUnavailable

        field = f"metadata.name={self._plan.name}"
        while True:
            try:
                found = await self._client.list(resource, self._plan.namespace, field_selector=field)
                yield found.items[0] if found.items else None
                watch = self._client.watch(
                    resource, self._plan.namespace, field_selector=field, resource_version=found.resource_version
                )
                async with aclosing(cast("AsyncGenerator[Any, None]", watch)) as events:
                    async for event in events:
                        if event.type != "BOOKMARK":
                            yield None if event.type == "DELETED" else event.object
            except (Gone, ServerUnavailable) as error:
                self._last = f"{resource.plural}: {error}"
                await asyncio.sleep(0.5)

    async def _remove(self) -> None:
        """Delete what a run makes, and wait until it is gone."""
        from nodewright.kube.errors import NotFound
        from nodewright.kube.resources import DAEMONSETS, PODS, SERVICES

        for resource in (SERVICES, DAEMONSETS, PODS):
            try:
                await self._client.delete(
                    resource, self._plan.name, self._plan.namespace, propagation_policy="Background"
                )
            except NotFound:
                continue
        try:
            async with asyncio.timeout(_GONE_TIMEOUT):
                for resource in (DAEMONSETS, PODS):
                    await self._gone(resource)
        except TimeoutError:
            raise CliError(
                f"{self._plan.namespace}/{self._plan.name} is not gone after {_GONE_TIMEOUT:.0f} s"
            ) from None

    async def _gone(self, resource: Resource) -> None:
        async with aclosing(self._states(resource)) as states:
            async for found in states:
                if found is None:
                    return


async def _ask(session: aiohttp.ClientSession, url: str) -> str:
    """The node that answers; empty when none does."""
    import aiohttp

    try:
        async with session.get(url) as answer:
            return (await answer.text()).strip()
    except (aiohttp.ClientError, TimeoutError):
        return ""


async def _serve(port: int) -> None:
    """Say on which node this runs, to whoever asks, until SIGTERM."""
    import signal

    from aiohttp import web

    node = os.environ.get("NODE_NAME", "")

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=f"{node}\n")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # None: both families, as far as the Pod has them
    await web.TCPSite(runner, None, port).start()
    await stop.wait()
    await runner.cleanup()
