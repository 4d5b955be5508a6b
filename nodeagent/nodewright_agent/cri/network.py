"""The network of sandboxes: the agent's own, once it is known which addresses are to be used."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from nodewright_agent.cri import wire
from nodewright_agent.cri.errors import Unfit
from nodewright_agent.network.addresses import NetworkError
from nodewright_agent.network.hostports import PortMapping
from nodewright_agent.network.podnet import NetworkConfig, PodNetwork

_PROTOCOLS = {0: "tcp", 1: "udp", 2: "sctp"}


class Network:
    """Attaches sandboxes. The pod CIDR is kept on disk, so that a restarted server has its network at once."""

    def __init__(self, directory: Path, pod_cidr: str) -> None:
        """Keep assignments below ``directory``; ``pod_cidr`` empty: the one that was last used."""
        self._directory, self._file = directory, directory / "pod-cidr"
        self._given = pod_cidr
        self._net: PodNetwork | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self.problem = "no pod CIDR is known yet: give --pod-cidr, or call UpdateRuntimeConfig"
        """Why there is no network; empty: there is."""

    async def start(self) -> None:
        """Begin, if addresses are known; what is wrong is then in ``problem``."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        cidr = self._given or (self._file.read_text() if self._file.exists() else "")
        if cidr:
            await self.use(cidr)

    async def use(self, pod_cidr: str) -> None:
        """Take this CIDR. The one in use stays: sandboxes have its addresses."""
        async with self._starting:
            if self._net is None:
                await self._use(pod_cidr)

    async def _use(self, pod_cidr: str) -> None:
        # There is no other node to be reached without masquerading.
        net = PodNetwork(NetworkConfig(state_dir=self._directory, cluster_cidr=pod_cidr))
        try:
            await net.start(pod_cidr)
        except (NetworkError, OSError) as error:
            net.close()
            self.problem = str(error)
            return
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(pod_cidr)
        os.replace(temporary, self._file)
        self._net, self.problem = net, ""
        self._keeper = asyncio.create_task(net.keep())

    async def attach(self, sandbox: str, netns: str, ports: Any) -> str:
        """Connect a sandbox and open its host ports; its address. Raises NetworkError, Unfit."""
        if self._net is None:
            raise Unfit(f"the network is not ready: {self.problem}")
        address = (await self._net.attach(sandbox, Path(netns))).ip
        wanted = [
            PortMapping(_PROTOCOLS[port.protocol], _any(port.host_ip), port.host_port, address, port.container_port)
            for port in ports
            if port.host_port
        ]
        if wanted:
            await self._net.publish(sandbox, wanted)
        return address

    def attached(self) -> set[str]:
        """The sandboxes that have an address."""
        return set(self._net.attached()) if self._net is not None else set()

    async def detach(self, sandbox: str) -> None:
        """Take all of it back; idempotent."""
        if self._net is not None:
            await self._net.detach(sandbox)

    async def close(self) -> None:
        """Stop; what sandboxes have stays."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._net is not None:
            self._net.close()

    def conditions(self) -> list[Any]:
        """What Status says."""
        ready = not self.problem
        reason = "" if ready else "NetworkPluginNotReady"
        network = wire.RuntimeCondition(type="NetworkReady", status=ready, reason=reason, message=self.problem)
        return [wire.RuntimeCondition(type="RuntimeReady", status=True), network]


def _any(host_ip: str) -> str:
    return "" if host_ip == "0.0.0.0" else host_ip
