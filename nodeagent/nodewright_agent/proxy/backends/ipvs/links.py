"""The dummy link that holds the virtual addresses: IPVS only sees packets that the node takes for its own."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable

from nodewright_agent.proxy.backends.base import BackendError
from nodewright_agent.proxy.model import unpack_address
from nodewright_agent.proxy.netlink import (
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    NetlinkError,
    NetlinkSocket,
    attr,
    attributes,
    message,
    nested,
    string,
)

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND = 3, 18, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NODAD = 2
_AF = {4: 2, 16: 10}
_CHUNK = 400
"""Addresses in one send."""


class DummyLink:
    """A dummy link and its addresses, in the network namespace where this was made."""

    def __init__(self, name: str) -> None:
        """Open a socket; `ensure` makes the link."""
        self.name = name
        self._socket = NetlinkSocket(NETLINK_ROUTE)
        self._index = 0

    def close(self) -> None:
        """Close the socket; the link stays."""
        self._socket.close()

    def ensure(self) -> None:
        """Create the link where it is missing. Raises BackendError where the kernel has no dummy links."""
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
        body += string(_IFLA_IFNAME, self.name)
        body += nested(_IFLA_LINKINFO, string(_IFLA_INFO_KIND, "dummy"))
        for failure in self._socket.request(_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body):
            if failure.errno != errno.EEXIST:
                raise BackendError(f"link {self.name} (module dummy): {failure}")
        self._index = self._find()

    def _find(self) -> int:
        body = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
        for item in self._socket.dump(_GETLINK, body):
            index: int = struct.unpack_from("=i", item.payload, 4)[0]
            if attributes(item.payload, 16).get(_IFLA_IFNAME, b"").rstrip(b"\0") == self.name.encode():
                return index
        return 0

    def addresses(self) -> set[bytes]:
        """Give the packed addresses on the link, but link-local ones of the kernel's own making."""
        found = set()
        for item in self._socket.dump(_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
            if struct.unpack_from("=I", item.payload, 4)[0] != self._index:
                continue
            parts = attributes(item.payload, 8)
            address = parts.get(_IFA_LOCAL) or parts.get(_IFA_ADDRESS, b"")
            if address[:2] != b"\xfe\x80":
                found.add(address)
        return found

    def change(self, added: Iterable[bytes], removed: Iterable[bytes]) -> None:
        """Add and remove addresses. Raises BackendError naming the first that the kernel refused."""
        self._bulk(_DELADDR, 0, sorted(removed), {errno.EADDRNOTAVAIL})
        self._bulk(_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sorted(added), {errno.EEXIST})

    def _bulk(self, kind: int, flags: int, addresses: list[bytes], harmless: set[int]) -> None:
        for start in range(0, len(addresses), _CHUNK):
            chunk = addresses[start : start + _CHUNK]
            parts, meaning, seq = [], {}, 0
            for address in chunk:
                seq = self._socket.next_sequence()
                meaning[seq] = address
                last = address is chunk[-1]
                parts.append(
                    message(kind, flags | NLM_F_REQUEST | (NLM_F_ACK if last else 0), seq, self._body(address))
                )
            for failure in self._socket.acknowledge(b"".join(parts), seq):
                if failure.errno not in harmless:
                    what = unpack_address(meaning[failure.seq]) if failure.seq in meaning else "addresses"
                    raise BackendError(f"{what} on {self.name}: {failure}")

    def _body(self, address: bytes) -> bytes:
        head = struct.pack("=BBBBI", _AF[len(address)], len(address) * 8, 0, 0, self._index)
        flags = attr(_IFA_FLAGS, struct.pack("=I", _IFA_F_NODAD if len(address) == 16 else 0))
        return head + attr(_IFA_LOCAL, address) + attr(_IFA_ADDRESS, address) + flags

    def delete(self) -> None:
        """Delete the link with all its addresses."""
        index = self._find()
        if not index:
            return
        try:
            self._socket.require(_DELLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0), f"delete {self.name}")
        except NetlinkError as error:
            if error.errno != errno.ENODEV:
                raise
