"""Address assignments of one node, kept on disk so that they outlive the agent.

Each assignment is one file named by the address, holding the pod's UID. Creating a file with ``O_EXCL`` is the
assignment, so a crash at any point leaves either an assignment or none.
"""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from nodewright_agent.network.addresses import SubnetExhausted, candidates


class AddressPool:
    """Assigns addresses of ``subnet`` to pods. One process per node uses it; calls are quick file operations."""

    def __init__(self, directory: Path, subnet: IPv4Network) -> None:
        """Open the pool in ``directory`` (made if missing) and drop assignments outside ``subnet``."""
        self._directory = directory
        self._subnet = subnet
        directory.mkdir(parents=True, exist_ok=True)
        self._by_pod: dict[str, IPv4Address] = {}
        for entry in directory.iterdir():
            self._load(entry)
        self._last = max(self._by_pod.values(), default=None)

    def _load(self, entry: Path) -> None:
        try:
            address, pod_uid = IPv4Address(entry.name), entry.read_text()
        except ValueError:
            entry.unlink()  # not an address: left over by a crash between creating and renaming
            return
        if address not in self._subnet or not pod_uid:
            entry.unlink()  # the node got another CIDR, or a crash came before the UID was written
            return
        self._by_pod[pod_uid] = address

    def assignments(self) -> dict[str, IPv4Address]:
        """Return address by pod UID."""
        return dict(self._by_pod)

    def get(self, pod_uid: str) -> IPv4Address | None:
        """Return the pod's address, or ``None``."""
        return self._by_pod.get(pod_uid)

    def assign(self, pod_uid: str) -> IPv4Address:
        """Return the pod's address, choosing a free one at the first call. Raise ``SubnetExhausted`` when none is."""
        known = self._by_pod.get(pod_uid)
        if known is not None:
            return known
        for address in candidates(self._subnet, self._last):
            try:
                handle = os.open(self._directory / str(address), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                continue
            with os.fdopen(handle, "w") as file:
                file.write(pod_uid)
            self._by_pod[pod_uid] = self._last = address
            return address
        raise SubnetExhausted(f"no address left in pod CIDR {self._subnet}: {len(self._by_pod)} are assigned")

    def release(self, pod_uid: str) -> None:
        """Give the pod's address back; nothing happens when it has none."""
        address = self._by_pod.pop(pod_uid, None)
        if address is not None:
            (self._directory / str(address)).unlink(missing_ok=True)
