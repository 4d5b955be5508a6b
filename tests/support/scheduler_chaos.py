"""Schedulers as processes that can be killed, and the check of what must hold whatever was done to them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import aiohttp

from nodewright.controlplane.cluster import LocalCluster
from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError
from nodewright.kube.quantity import parse
from nodewright.kube.resources import EVENTS_V1, LEASES, NODES, PODS

Object = dict[str, Any]


async def until(check: Callable[[], Awaitable[Any]], timeout: float = 60.0, every: float = 0.1) -> Any:
    """The first true answer of `check`. An API server that is away for now is no answer."""
    deadline = asyncio.get_running_loop().time() + timeout
    failure: Exception | None = None
    while True:
        try:
            if answer := await check():
                return answer
        except (AssertionError, OSError, aiohttp.ClientError, ApiError) as error:
            failure = error
        if asyncio.get_running_loop().time() > deadline:
            raise failure or AssertionError(f"{check} was not true within {timeout} s")
        await asyncio.sleep(every)


class Spawned:
    """A `nodewright scheduler` process. `name` is for its log; `port` serves its probes."""

    command = "scheduler"

    def __init__(self, name: str, kubeconfig: Path, directory: Path, *arguments: str) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self.port = _free_port()
        argv = [sys.executable, "-m", "nodewright.cli.main", self.command, "--kubeconfig", str(kubeconfig)]
        argv += [f"--metrics-bind=127.0.0.1:{self.port}", *arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Send a signal to a process that has not been waited for."""
        if self._process.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """The end without a last word, also of one that is stopped."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    async def ended(self, timeout: float = 30.0) -> int:
        """Wait for its end; the exit code."""

        async def check() -> bool:
            return self.code is not None

        await until(check, timeout)
        assert self.code is not None
        return self.code

    async def get(self, path: str) -> tuple[int, str]:
        """Ask its health server."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}{path}") as answer:
            return answer.status, await answer.text()

    async def ready(self) -> None:
        """Wait until it says so."""

        async def check() -> bool:
            assert self.code is None, f"{self.name} ended with {self.code}:\n{self.log.read_text()[-2000:]}"
            return (await self.get("/readyz"))[0] == 200

        await until(check)

    async def metric(self, name: str, /, **labels: str) -> float:
        """The sum of the samples of that name which have these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        total = 0.0
        for line in (await self.get("/metrics"))[1].splitlines():
            found, _, rest = line.partition("{") if "{" in line else line.partition(" ")
            if found == name and all(text in rest for text in wanted):
                total += float(line.rsplit(" ", 1)[1])
        return total


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def leader(client: Client) -> str:
    """Who holds the scheduler's Lease; "" for nobody."""
    found = await client.list(LEASES, "kube-system")
    leases = [item for item in found.items if item["metadata"]["name"] == "nodewright-scheduler"]
    return str(leases[0]["spec"].get("holderIdentity") or "") if leases else ""


# --- what must hold ------------------------------------------------------------------------------------------------


class Bindings:
    """What the API server's audit log says of bindings, per Pod: clients may not have been told of all."""

    def __init__(self, lab: LocalCluster, namespace: str) -> None:
        self.stored: Counter[str] = Counter()
        # The client went away while the server worked on it: "did not complete", stored or not.
        self.interrupted: Counter[str] = Counter()
        for line in lab.layout.audit_log.read_text().splitlines():
            if namespace not in line or '"binding"' not in line:
                continue
            entry = json.loads(line)
            ref = entry.get("objectRef", {})
            if ref.get("subresource") == "binding" and ref.get("namespace") == namespace:
                code = entry["responseStatus"]["code"]
                counts = {201: self.stored, 504: self.interrupted}.get(code, Counter())
                counts[ref["name"]] += 1


def overcommitted(nodes: Iterable[Object], pods: Iterable[Object]) -> list[str]:
    """What is promised twice: a line per node and resource, or host port. Pods that have ended do not count."""
    problems = []
    at: dict[str, list[Object]] = defaultdict(list)
    for pod in pods:
        if pod["spec"].get("nodeName") and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            at[pod["spec"]["nodeName"]].append(pod)
    for node in nodes:
        name, room = node["metadata"]["name"], node["status"]["allocatable"]
        here = at[name]
        used: Counter[str] = Counter()
        ports: Counter[int] = Counter()
        for pod in here:
            for container in pod["spec"]["containers"]:
                for resource, amount in (container.get("resources", {}).get("requests") or {}).items():
                    used[resource] += int(parse(amount) * 1000)
                ports.update(p["hostPort"] for p in container.get("ports", []) if p.get("hostPort"))
        problems += [
            f"{name}: {used[resource]} of {int(parse(room[resource]) * 1000)} thousandths of {resource}"
            for resource in used
            if used[resource] > int(parse(room[resource]) * 1000)
        ]
        problems += [f"{name}: host port {port} given {count} times" for port, count in ports.items() if count > 1]
        if len(here) > int(room["pods"]):
            problems.append(f"{name}: {len(here)} of {room['pods']} pods")
    return problems


class Verdict:
    """The state after a storm, and questions about it."""

    def __init__(self, nodes: list[Object], pods: list[Object], events: list[Object], bindings: Bindings) -> None:
        self.nodes, self.pods, self.events, self.bindings = nodes, pods, events, bindings

    @classmethod
    async def of(cls, client: Client, lab: LocalCluster, namespace: str) -> Verdict:
        """Look at all there is."""
        nodes = (await client.list(NODES)).items
        pods = (await client.list(PODS, namespace)).items
        events = (await client.list(EVENTS_V1, namespace)).items
        return cls(nodes, pods, events, Bindings(lab, namespace))

    @property
    def bound(self) -> dict[str, str]:
        """Pods with a node, and which."""
        return {p["metadata"]["name"]: p["spec"]["nodeName"] for p in self.pods if p["spec"].get("nodeName")}

    def check(self, names: Iterable[str], *, killed_scheduler: bool = False, killed_server: bool = False) -> None:
        """All of these Pods are bound, once, and nothing is promised twice; each has its event.

        A scheduler that was killed could not tell of all that it did, and a server that was killed may not have logged
        all that it stored.
        """
        wanted = set(names)
        assert set(self.bound) == wanted
        problems = overcommitted(self.nodes, self.pods)
        assert not problems, problems
        stored, interrupted = self.bindings.stored, self.bindings.interrupted
        assert set(stored.values()) <= {1}, [name for name, count in stored.items() if count > 1]
        if not killed_server:
            assert set(stored) | set(interrupted) >= wanted
            assert killed_scheduler or set(stored) == wanted
        self.check_events(() if killed_scheduler else wanted)
        self.check_conditions()

    def check_events(self, announced: Iterable[str]) -> None:
        """Events of placement say what is so, each once; these Pods have theirs."""
        scheduled = [e for e in self.events if e["reason"] == "Scheduled"]
        per_pod = Counter(e["regarding"]["name"] for e in scheduled)
        assert not [name for name, count in per_pod.items() if count > 1]
        assert set(announced) <= set(per_pod)
        for event in scheduled:
            name = event["regarding"]["name"]
            place = f"{event['regarding']['namespace']}/{name} to {self.bound[name]}"
            assert event["note"] == f"Successfully assigned {place}"

    def check_conditions(self) -> None:
        """Pods with a node are said to be scheduled: no late word that they cannot be stands."""
        for pod in self.pods:
            said = {c["type"]: c for c in pod.get("status", {}).get("conditions", [])}.get("PodScheduled")
            if pod["spec"].get("nodeName"):
                assert said is not None
                assert said["status"] == "True", (pod["metadata"]["name"], said)
