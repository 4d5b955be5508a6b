"""Netlink framing: attributes, messages, and a socket for requests. Shared by nftables, IPVS, links and conntrack.

Only what is in every protocol of the family is here. Multi-byte integers of the header are in host order; what is
inside attributes is for each protocol to say.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
NETLINK_GENERIC = 16

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_DUMP = 0x300
NLM_F_DUMP_INTR = 0x10
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_U16 = struct.Struct("=H")

_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_CAP_ACK = 10
_RECEIVE = 1 << 18
_SNAPSHOTS = 20


class Message(NamedTuple):
    """One netlink message."""

    type: int
    flags: int
    seq: int
    pid: int
    payload: bytes


class Failure(NamedTuple):
    """A message that the kernel refused."""

    seq: int
    errno: int

    def __str__(self) -> str:
        """Name the error as the C library does."""
        return f"{errno.errorcode.get(self.errno, self.errno)} ({os.strerror(self.errno)})"


def attr(kind: int, value: bytes) -> bytes:
    """Encode an attribute, padded to four bytes."""
    size = len(value)
    return _ATTR.pack(size + 4, kind) + value + b"\0" * (-size & 3)


def nested(kind: int, *parts: bytes) -> bytes:
    """Encode an attribute that contains attributes."""
    value = b"".join(parts)
    return _ATTR.pack(len(value) + 4, kind | NLA_F_NESTED) + value


def string(kind: int, text: str) -> bytes:
    """Encode a zero-terminated string attribute."""
    return attr(kind, text.encode() + b"\0")


def message(kind: int, flags: int, seq: int, payload: bytes) -> bytes:
    """Encode a message; the kernel fills in the sender."""
    size = len(payload) + 16
    return _HEADER.pack(size, kind, flags, seq, 0) + payload + b"\0" * (-size & 3)


def messages(data: bytes) -> Iterator[Message]:
    """Split what one receive returned."""
    offset, end = 0, len(data)
    while offset + 16 <= end:
        size, kind, flags, seq, pid = _HEADER.unpack_from(data, offset)
        if size < 16:
            return
        yield Message(kind, flags, seq, pid, data[offset + 16 : offset + size])
        offset += (size + 3) & ~3


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Decode a level of attributes; of a repeated one the last stays."""
    return dict(attribute_list(data, offset))


def attribute_list(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Decode a level of attributes in order."""
    end = len(data)
    while offset + 4 <= end:
        size, kind = _ATTR.unpack_from(data, offset)
        if size < 4:
            return
        yield kind & NLA_TYPE_MASK, data[offset + 4 : offset + size]
        offset += (size + 3) & ~3


def text_of(value: bytes) -> str:
    """Decode a zero-terminated string."""
    return value.split(b"\0", 1)[0].decode(errors="replace")


def error_of(payload: bytes) -> int:
    """Give the positive errno in an NLMSG_ERROR payload; 0 is an acknowledgement."""
    return int(-_ERROR.unpack_from(payload)[0])


class NetlinkError(OSError):
    """The kernel refused a request."""


class NetlinkSocket:
    """A socket that belongs to the network namespace in which it was created, and stays with it."""

    def __init__(self, protocol: int, *, groups: tuple[int, ...] = (), buffer: int = 1 << 20) -> None:
        """Open and bind. `buffer`: bytes for each direction, beyond the system's limit where privileges allow."""
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self.socket.bind((0, 0))
        self.pid: int = self.socket.getsockname()[0]
        self._sequence = 0
        self._torn = False
        self._sendable = 0
        self.reserve(buffer)
        self._grow(_SO_RCVBUFFORCE, socket.SO_RCVBUF, buffer)
        # Errors come back without a copy of the request: with 100,000 elements the copies would overflow the buffer.
        self.socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        for group in groups:
            self.socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def __enter__(self) -> NetlinkSocket:
        """Give itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def reserve(self, size: int) -> None:
        """Make sure that one message of this size can be sent."""
        if size > self._sendable:
            self._grow(_SO_SNDBUFFORCE, socket.SO_SNDBUF, size)
            self._sendable = size

    def _grow(self, force: int, plain: int, size: int) -> None:
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, force, size)
        except PermissionError:  # without CAP_NET_ADMIN in the first user namespace; the limit may still suffice
            self.socket.setsockopt(socket.SOL_SOCKET, plain, size)

    def next_sequence(self) -> int:
        """Give a sequence number not used before on this socket."""
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        return self._sequence

    def send(self, data: bytes) -> None:
        """Send one datagram. The kernel works on it before this returns."""
        self.reserve(len(data) + 4096)
        self.socket.send(data)

    def receive(self) -> bytes:
        """Wait for one datagram."""
        return self.socket.recv(_RECEIVE)

    def waiting(self) -> Iterator[Message]:
        """Give what is in the receive buffer now, without waiting. Raises OSError (ENOBUFS) where some was lost."""
        while True:
            try:
                data = self.socket.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            yield from messages(data)

    def acknowledge(self, data: bytes, last: int) -> list[Failure]:
        """Send messages of which the one numbered `last` asks for an acknowledgement, and give those refused."""
        self.send(data)
        failures: list[Failure] = []
        while True:
            for item in messages(self.receive()):
                if item.type != NLMSG_ERROR:
                    continue
                code = error_of(item.payload)
                if code:
                    failures.append(Failure(item.seq, code))
                if item.seq == last:
                    return failures

    def request(self, kind: int, flags: int, payload: bytes) -> list[Failure]:
        """Send one message and wait for its acknowledgement."""
        seq = self.next_sequence()
        return self.acknowledge(message(kind, flags | NLM_F_REQUEST | NLM_F_ACK, seq, payload), seq)

    def require(self, kind: int, flags: int, payload: bytes, what: str) -> None:
        """Send one message; raises NetlinkError naming `what` where the kernel refuses it."""
        for failure in self.request(kind, flags, payload):
            raise NetlinkError(failure.errno, f"{what}: {os.strerror(failure.errno)}")

    def dump(self, kind: int, payload: bytes, *, flags: int = NLM_F_DUMP) -> Iterator[Message]:
        """Ask for a dump and give its messages. Raises NetlinkError where the kernel refuses, or breaks off."""
        seq = self.next_sequence()
        self._torn = False
        self.send(message(kind, flags | NLM_F_REQUEST, seq, payload))
        while True:
            for item in messages(self.receive()):
                if item.seq != seq:
                    continue
                self._torn = self._torn or bool(item.flags & NLM_F_DUMP_INTR)
                if item.type in (NLMSG_DONE, NLMSG_ERROR):
                    code = error_of(item.payload)
                    if code > 0:
                        raise NetlinkError(code, os.strerror(code))
                    return
                yield item

    def snapshot(self, kind: int, payload: bytes) -> list[Message]:
        """As `dump`, but of one moment: asked for again where something changed in between, so that none is missing.

        Raises NetlinkError, with EINTR where changes never end.
        """
        for _ in range(_SNAPSHOTS):
            found = list(self.dump(kind, payload))
            if not self._torn:
                return found
        raise NetlinkError(errno.EINTR, "changes come faster than the kernel can tell of them")


def generic_family(sock: NetlinkSocket, name: str) -> int | None:
    """Give the number of a generic netlink family, None where the kernel has none (it loads modules as needed)."""
    getfamily = struct.pack("=BBH", 3, 1, 0) + string(2, name)
    seq = sock.next_sequence()
    sock.send(message(16, NLM_F_REQUEST, seq, getfamily))
    for item in messages(sock.receive()):
        if item.type == NLMSG_ERROR:
            return None
        number = attributes(item.payload, 4).get(1)
        if number is not None:
            return int(_U16.unpack(number)[0])
    return None
