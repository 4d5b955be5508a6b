"""The IPVS socket: batches of commands and dumps."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from nodewright_agent.proxy.backends.base import BackendError
from nodewright_agent.proxy.backends.ipvs import wire
from nodewright_agent.proxy.netlink import (
    NETLINK_GENERIC,
    NLM_F_ACK,
    NLM_F_REQUEST,
    Failure,
    Message,
    NetlinkSocket,
    generic_family,
    message,
)

_CHUNK = 60_000
"""Bytes in one send; what has been measured to work."""


class Command(NamedTuple):
    """One change, and the error numbers that mean it is done already."""

    number: int
    payload: bytes
    what: str
    harmless: frozenset[int] = frozenset()


class Ipvs:
    """A generic netlink socket for IPVS, in the network namespace where it was made."""

    def __init__(self) -> None:
        """Open it; the kernel loads ip_vs if it can. Raises BackendError where there is none."""
        self._socket = NetlinkSocket(NETLINK_GENERIC)
        family = generic_family(self._socket, "IPVS")
        if family is None:
            self._socket.close()
            raise BackendError("the kernel has no IPVS (module ip_vs)")
        self._family = family

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def run(self, commands: Iterable[Command]) -> None:
        """Send commands in bulk. The kernel carries out those that it can; raises BackendError naming the others."""
        problems: list[str] = []
        chunk: list[Command] = []
        size = 0
        for command in commands:
            if size + len(command.payload) > _CHUNK:
                problems += self._send(chunk)
                chunk, size = [], 0
            chunk.append(command)
            size += len(command.payload) + 20
        problems += self._send(chunk)
        if problems:
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise BackendError(f"IPVS refused: {'; '.join(problems[:3])}{more}")

    def _send(self, chunk: list[Command]) -> list[str]:
        if not chunk:
            return []
        parts: list[bytes] = []
        numbered: dict[int, Command] = {}
        seq = 0
        for index, command in enumerate(chunk):
            seq = self._socket.next_sequence()
            numbered[seq] = command
            flags = NLM_F_REQUEST | (NLM_F_ACK if index == len(chunk) - 1 else 0)
            header = struct.pack("=BBH", command.number, 1, 0)
            parts.append(message(self._family, flags, seq, header + command.payload))
        failures: list[Failure] = self._socket.acknowledge(b"".join(parts), seq)
        return [
            f"{numbered[failure.seq].what}: {failure}"
            for failure in failures
            if failure.seq in numbered and failure.errno not in numbered[failure.seq].harmless
        ]

    def _dump(self, number: int, payload: bytes = b"") -> Iterator[Message]:
        return self._socket.dump(self._family, struct.pack("=BBH", number, 1, 0) + payload)

    def services(self) -> dict[bytes, wire.Service]:
        """Give all services by address, whoever made them."""
        found = (wire.decode_service(item.payload) for item in self._dump(wire.GET_SERVICE))
        return dict(entry for entry in found if entry is not None)

    def traffic(self) -> dict[bytes, tuple[int, int]]:
        """Give connections and bytes of all services."""
        found: dict[bytes, tuple[int, int]] = {}
        for item in self._dump(wire.GET_SERVICE):
            entry = wire.decode_service(item.payload)
            if entry is not None:
                found[entry[0]] = wire.decode_traffic(item.payload)
        return found

    def destinations(self, key: bytes) -> dict[bytes, wire.Destination]:
        """Give the destinations of a service; none where it does not exist."""
        found = (wire.decode_destination(item.payload) for item in self._dump(wire.GET_DEST, wire.service_key(key)))
        return dict(entry for entry in found if entry is not None)


EXISTS = frozenset({errno.EEXIST})
GONE = frozenset({errno.ESRCH, errno.ENOENT})
