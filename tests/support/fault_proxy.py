"""An HTTPS proxy in front of a real API server that fails on purpose, by rules, and counts what it did.

It stands on loopback with a certificate of the cluster's own authority. Clients are told apart by the path prefix in
their kubeconfig (`/NAME`). Whatever it forwards goes out as one user, whose certificate it holds. A rule that counts
(`every`) or rolls dice (`share`, from its own seed) does the same for the same order of requests.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from nodewright.controlplane import pki
from nodewright.controlplane.certificates import AUTHORITIES, CLUSTER_CA, kubeconfig
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.pki import LeafSpec, Pair, Subject

BINDING = r"/pods/[^/]+/binding$"
POD_STATUS = r"/pods/[^/]+/status$"
EVENTS = r"/apis/events\.k8s\.io/v1/namespaces/[^/]+/events"
LEASES = r"/leases(/|$)"
PODS = r"^/api/v1/pods$"

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "host", "content-length"}


@dataclass
class Fault:
    """What is done to a request. The parts take effect in the order of the fields."""

    delay: float = 0.0  # seconds, before anything else
    hold: asyncio.Event | None = None  # wait for it
    cut_before: bool = False  # the connection breaks, the server never hears of it
    status: int = 0  # this answer, without asking the server
    retry_after: int | None = None
    cut_after: bool = False  # the server does it, its answer is lost
    hold_answer: asyncio.Event | None = None  # the server does it; its answer waits for this
    hold_stream: asyncio.Event | None = None  # nothing of a watch passes until this is set
    lag: float = 0.0  # seconds that each piece of a watch is late


@dataclass
class Rule:
    """Which requests a fault hits: method, a regular expression for the path, a client; and how many of those."""

    fault: Fault
    method: str = ""
    path: str = ""
    client: str = ""
    every: int = 1  # each n-th that matches
    share: float = 1.0  # of those, this part
    limit: int | None = None
    seed: int = 0
    seen: int = 0
    hits: int = 0
    _dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    def applies(self, client: str, method: str, path: str) -> bool:
        if self.client not in ("", client) or self.method not in ("", method) or not re.search(self.path, path):
            return False
        self.seen += 1
        if self.seen % self.every or (self.limit is not None and self.hits >= self.limit):
            return False
        if self.share < 1.0 and self._dice.random() >= self.share:
            return False
        self.hits += 1
        return True


@dataclass(frozen=True)
class Exchange:
    """A request that is over: what the server answered (0: it was not asked), and what the client got (0: nothing)."""

    client: str
    method: str
    path: str
    server: int
    told: int


class FaultProxy:
    """Start it in a running loop, `add` rules at any time, and look at `log` and the rules' `hits` afterwards."""

    def __init__(self, cluster: LocalCluster, directory: Path, user: str = "scheduler") -> None:
        self._cluster = cluster
        self._dir = directory
        self._user = user
        self.rules: list[Rule] = []
        self.log: list[Exchange] = []
        self.port = 0
        self._requests: list[tuple[str, web.BaseRequest]] = []
        self._streams: list[tuple[str, web.BaseRequest]] = []
        self._runner: web.ServerRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    # --- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._dir.mkdir(parents=True, exist_ok=True)
        authority, _ = pki.ensure_authority(self._pair(CLUSTER_CA), AUTHORITIES[CLUSTER_CA], datetime.now(UTC))
        mine = Pair.at(self._dir, "fault-proxy")
        spec = LeafSpec(Subject("fault-proxy"), server=True, sans=("127.0.0.1", "localhost"))
        pki.ensure_leaf(mine, spec, authority, datetime.now(UTC))
        incoming = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        incoming.load_cert_chain(mine.cert, mine.key)
        outgoing = ssl.create_default_context(cafile=str(self._pair(CLUSTER_CA).cert))
        as_user = self._pair(f"user-{self._user}")
        outgoing.load_cert_chain(as_user.cert, as_user.key)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=outgoing), auto_decompress=False, trust_env=False
        )
        self._runner = web.ServerRunner(
            web.Server(self._handle, access_log=None, handler_cancellation=True), shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=incoming)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self.cut_streams()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()
        await asyncio.sleep(0)

    def kubeconfig(self, client: str = "one") -> Path:
        """A kubeconfig that leads through the proxy, for the client of that name."""
        path = self._dir / f"{client}.conf"
        pair = self._pair(f"user-{self._user}")
        ca = self._pair(CLUSTER_CA).cert.read_bytes()
        server = f"https://127.0.0.1:{self.port}/{client}"
        path.write_bytes(kubeconfig(client, server, client, ca, pair.cert.read_bytes(), pair.key.read_bytes()))
        path.chmod(0o600)
        return path

    def _pair(self, name: str) -> Pair:
        return Pair.at(self._cluster.layout.pki, name)

    # --- what to do ------------------------------------------------------------------------------------------------

    def add(self, fault: Fault, **which: Any) -> Rule:
        """Apply this fault to matching requests from now on. The first rule that applies wins."""
        rule = Rule(fault, **which)
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        """Only good days from now on."""
        self.rules.clear()

    def cut_streams(self, client: str = "") -> int:
        """Break the watches that are open (of one client); how many."""
        open_now = [request for name, request in self._streams if client in ("", name)]
        for request in open_now:
            _cut(request)
        return len(open_now)

    def cut_requests(self, client: str = "") -> None:
        """Break all connections of a client on which a request is under way, as if its host were gone."""
        for name, request in list(self._requests):
            if client in ("", name):
                _cut(request)

    def count(self, want: Callable[[Exchange], bool]) -> int:
        """How many exchanges so far are of that kind."""
        return sum(1 for exchange in self.log if want(exchange))

    def committed_unseen(self, path: str = BINDING) -> int:
        """Writes that the server carried out and the client was not told about."""
        return self.count(lambda e: bool(re.search(path, e.path)) and 200 <= e.server < 300 and not e.told)

    def told(self, path: str = BINDING, method: str = "POST") -> Counter[int]:
        """What clients were told, by status (0: nothing)."""
        return Counter(e.told for e in self.log if e.method == method and re.search(path, e.path))

    # --- a request -------------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        _, client, rest = request.raw_path.split("/", 2)
        entry = (client, request)
        self._requests.append(entry)
        try:
            return await self._serve(request, client, rest)
        finally:
            self._requests.remove(entry)

    async def _serve(self, request: web.BaseRequest, client: str, rest: str) -> web.StreamResponse:
        path = "/" + rest.partition("?")[0]
        rule = next((r for r in self.rules if r.applies(client, request.method, path)), None)
        fault = rule.fault if rule else Fault()
        body = await request.read()
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.hold is not None:
            await fault.hold.wait()
        if fault.cut_before or fault.status:
            self.log.append(Exchange(client, request.method, path, 0, fault.status))
            return _cut(request) if fault.cut_before else _refusal(fault)
        try:
            return await self._forward(request, client, "/" + rest, path, body, fault)
        except aiohttp.ClientError:
            self.log.append(Exchange(client, request.method, path, 0, 0))
            return _cut(request)  # the server is away or went away: pass that on as it is

    async def _forward(
        self, request: web.BaseRequest, client: str, target: str, path: str, body: bytes, fault: Fault
    ) -> web.StreamResponse:
        assert self._session is not None
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
        url = URL(self._cluster.server + target, encoded=True)
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.request(
            request.method, url, data=body or None, headers=headers, timeout=timeout, allow_redirects=False
        ) as answer:
            if "watch=true" in target and answer.status == 200:
                return await self._stream(request, client, answer, fault)
            content = await answer.read()
        if fault.hold_answer is not None:
            await fault.hold_answer.wait()
        told = 0 if fault.cut_after or request.transport is None else answer.status
        self.log.append(Exchange(client, request.method, path, answer.status, told))
        if fault.cut_after:
            return _cut(request)
        kept = {k: v for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP}
        return web.Response(status=answer.status, body=content, headers=kept)

    async def _stream(
        self, request: web.BaseRequest, client: str, answer: aiohttp.ClientResponse, fault: Fault
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": answer.headers["Content-Type"]})
        await response.prepare(request)
        entry = (client, request)
        self._streams.append(entry)
        try:
            async for chunk in answer.content.iter_any():
                if fault.hold_stream is not None:
                    await fault.hold_stream.wait()
                if fault.lag:
                    await asyncio.sleep(fault.lag)
                await response.write(chunk)
        except (aiohttp.ClientError, OSError):
            _cut(request)  # either side has gone; the other shall notice
        finally:
            self._streams.remove(entry)
            answer.close()
        return response


def _cut(request: web.BaseRequest) -> web.Response:
    """Break the connection. The answer returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


_REASONS = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable"}


def _refusal(fault: Fault) -> web.Response:
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    reason = _REASONS.get(fault.status, "Unknown")
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": fault.status}
    status["message"] = f"injected: {fault.status}"
    return web.Response(
        status=fault.status, body=msgspec.json.encode(status), headers=headers, content_type="application/json"
    )
