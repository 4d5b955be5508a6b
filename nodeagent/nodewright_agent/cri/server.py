"""The gRPC server: takes calls at the socket, and turns errors into statuses."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from nodewright_agent.cri import errors, wire
from nodewright_agent.cri.containers import Containers
from nodewright_agent.cri.errors import Lacking
from nodewright_agent.cri.imagemounts import ImageMounts
from nodewright_agent.cri.images import ImageService
from nodewright_agent.cri.network import Network
from nodewright_agent.cri.parts import Parts
from nodewright_agent.cri.podsandboxes import PodSandboxes
from nodewright_agent.cri.records import Records
from nodewright_agent.cri.runtimeservice import RuntimeService
from nodewright_agent.cri.settings import Settings
from nodewright_agent.cri.streaming import Streaming
from nodewright_agent.runtime import userns
from nodewright_agent.runtime.errors import RuntimeUnavailable
from nodewright_agent.runtime.images.fsutil import held_alone
from nodewright_agent.runtime.images.store import ImageStore
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.sandbox import Sandboxes
from nodewright_agent.runtime.spec import ExitInfo

log = logging.getLogger(__name__)

MAX_MESSAGE = 64 << 20
"""Bytes: ExecSync's two streams of 16 MiB, and long lists."""
STREAMED_LISTS = frozenset(
    {
        "StreamPodSandboxes",
        "StreamContainers",
        "StreamContainerStats",
        "StreamPodSandboxStats",
        "StreamImages",
    }
)
_LACKING = {
    "CheckpointContainer": "checkpoints of containers are not implemented",
    "CheckpointPod": "checkpoints of pods are not implemented",
    "RestorePod": "checkpoints of pods are not implemented",
    "ListMetricDescriptors": "metrics are not implemented: use ListContainerStats and ListPodSandboxStats",
    "ListPodSandboxMetrics": "metrics are not implemented: use ListContainerStats and ListPodSandboxStats",
    "StreamPodSandboxMetrics": "metrics are not implemented: use ListContainerStats and ListPodSandboxStats",
}
"""Calls that we know and do not have."""
_REQUESTS = {"GetContainerEvents": ("GetEventsRequest", "ContainerEventResponse")}
_GRACE = 2.0


async def serve(settings: Settings, ready: Callable[[], None] | None = None) -> None:
    """Answer until SIGTERM or SIGINT. Containers go on. Raises RuntimeUnavailable, OSError at start."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    settings.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Two servers would end each other's containers.
    other = RuntimeUnavailable(f"another CRI server uses {settings.root}")
    with held_alone(settings.root / "lock", other):
        async with assembled(settings) as (parts, services):
            server = grpc.aio.server(
                options=[
                    ("grpc.max_send_message_length", MAX_MESSAGE),
                    ("grpc.max_receive_message_length", MAX_MESSAGE),
                ]
            )
            for name, service in services.items():
                server.add_generic_rpc_handlers((handlers(f"{wire.PACKAGE}.{name}", service),))
            settings.socket.parent.mkdir(parents=True, exist_ok=True)
            settings.socket.unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                server.add_insecure_port(f"unix://{settings.socket}")
                await server.start()
            finally:
                os.umask(before)
            log.info("CRI is served", extra={"socket": str(settings.socket)})
            if ready is not None:
                ready()
            await stop.wait()
            parts.events.post(None)
            await server.stop(_GRACE)
            settings.socket.unlink(missing_ok=True)
    log.info("the CRI server has stopped; its containers go on")


@contextlib.asynccontextmanager
async def assembled(settings: Settings) -> AsyncIterator[tuple[Parts, dict[str, Any]]]:
    """The parts, with what an earlier server left taken up, and the services by name."""
    async with contextlib.AsyncExitStack() as stack:
        images = ImageStore(settings.image_root)
        stack.push_async_callback(images.close)
        holder: list[Containers] = []

        def ended(cid: str, info: ExitInfo) -> None:
            for one in holder:  # none yet while the runtime is opened: nobody listens then
                one.ended(cid, info)

        runtime = Runtime(
            run_dir=settings.run_dir / "rt",
            state_dir=settings.root / "runtime",
            cgroup_root=settings.cgroup_root,
            runc=settings.runc,
            monitor=settings.conmon,
            on_exit=ended,
        )
        await runtime.open()
        stack.push_async_callback(runtime.close)
        network = Network(settings.root / "network", settings.pod_cidr)
        stack.push_async_callback(network.close)
        await network.start()
        probed = [settings.image_root, settings.root]
        problem = await asyncio.to_thread(userns.probe, runtime.layout.run / "userns-probe", probed)
        records = Records(settings.root)
        records.load()
        sandboxed = Sandboxes(settings.run_dir / "sb")
        volumes = ImageMounts(settings.run_dir / "rt" / "iv", images)
        parts = Parts(settings, runtime, sandboxed, images, network, records, volumes, problem)
        parts.sandboxes.prepare()
        sandboxes = PodSandboxes(parts)
        containers = Containers(parts, sandboxes)
        await sandboxes.recover()
        await containers.recover()
        holder.append(containers)
        streams = Streaming(parts, containers)
        stack.push_async_callback(streams.close)
        yield (
            parts,
            {
                "RuntimeService": RuntimeService(parts, sandboxes, containers, streams),
                "ImageService": ImageService(parts),
            },
        )


def handlers(name: str, service: Any) -> Any:
    """gRPC's table of a service: its public methods are the calls."""
    table = {}
    for call, text in _LACKING.items():
        table[call] = grpc.unary_unary_rpc_method_handler(_guarded(call, _lacking(text)))
    for call, _ in inspect.getmembers(service, callable):
        if call.startswith("_"):
            continue
        method = getattr(service, call)
        request, response = _REQUESTS.get(call, (f"{call}Request", f"{call}Response"))
        codecs = {
            "request_deserializer": getattr(wire, request).FromString,
            "response_serializer": getattr(wire, response).SerializeToString,
        }
        if call == "GetContainerEvents":
            table[call] = grpc.unary_stream_rpc_method_handler(_following(method), **codecs)
        elif call in STREAMED_LISTS:
            table[call] = grpc.unary_stream_rpc_method_handler(_streamed(call, method), **codecs)
        else:
            table[call] = grpc.unary_unary_rpc_method_handler(_guarded(call, method), **codecs)
    return grpc.method_handlers_generic_handler(name, table)


def _lacking(text: str) -> Callable[[Any], Any]:
    async def refuse(request: Any) -> Any:
        raise Lacking(text)

    return refuse


def _guarded(call: str, method: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    async def answer(request: Any, context: Any) -> Any:
        try:
            return await method(request)
        except errors.EXPECTED as error:
            log.info("%s is refused: %s", call, error)
            code, text = errors.code_of(error), str(error)
        except Exception as error:
            log.exception("%s failed", call)
            code, text = errors.code_of(error), f"{type(error).__name__}: {error}"
        return await context.abort(code, text)

    return answer


def _streamed(call: str, method: Callable[[Any], Any]) -> Callable[[Any, Any], AsyncIterator[Any]]:
    """A list as a stream: in one message, as our limit is far above what a node has; none when it is empty."""
    answer = _guarded(call, method)

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        found = await answer(request, context)
        if found.ListFields():
            yield found

    return stream


def _following(method: Callable[[Any], AsyncIterator[Any]]) -> Callable[[Any, Any], AsyncIterator[Any]]:
    """A stream without an end; that it has begun is told by the headers, at once."""

    async def stream(request: Any, context: Any) -> AsyncIterator[Any]:
        events = method(request)
        await context.send_initial_metadata(())
        async for event in events:
            yield event

    return stream
