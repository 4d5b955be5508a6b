"""Hears when somebody else changes our tables. Our own changes never wake the process: the kernel filters them."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import socket
import struct
from collections.abc import Callable

from nodewright_agent.proxy.backends.nftables import wire
from nodewright_agent.proxy.netlink import NETLINK_NETFILTER, Message, NetlinkSocket, attributes, messages, text_of

_GROUP_NFTABLES = 7
_SO_ATTACH_FILTER = 26
_KINDS = {
    wire.DELTABLE: "table deleted",
    wire.NEWCHAIN: "chain added",
    wire.DELCHAIN: "chain deleted",
    wire.NEWRULE: "rule added",
    wire.DELRULE: "rule deleted",
    wire.NEWSET: "set added",
    wire.DELSET: "set deleted",
    wire.NEWSETELEM: "elements added",
    wire.DELSETELEM: "elements deleted",
    wire.NEWTABLE: "table added",
}


def attach_filter(sock: socket.socket, pid: int) -> None:
    """Let the kernel drop notifications of changes made by the socket with this netlink address.

    A classic BPF program: load the header's nlmsg_pid (BPF reads big endian), compare, drop or accept.
    """
    mine = struct.unpack(">I", struct.pack("=I", pid))[0]
    code = b"".join(
        struct.pack("=HBBI", *step)
        for step in (
            (0x20, 0, 0, 12),  # A = word at 12
            (0x15, 0, 1, mine),  # if A == mine, the next, else skip one
            (0x06, 0, 0, 0),  # drop
            (0x06, 0, 0, 0xFFFFFFFF),  # accept
        )
    )
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HL", 4, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def foreign_change(item: Message, table: str) -> str | None:
    """Say what a notification changed in our table, None where it did not."""
    if item.type >> 8 != wire.NFNL_SUBSYS >> 8:
        return None
    text = _KINDS.get(item.type & 0xFF)
    if text is None or text_of(attributes(item.payload, 4).get(1, b"")) != table:
        return None
    return text


class Monitor:
    """A multicast socket of nf_tables in the network namespace where it was made."""

    def __init__(self, table: str, own_pid: int) -> None:
        """Listen for changes of a table by others than the socket with netlink address `own_pid`."""
        self._table = table
        self._socket = NetlinkSocket(NETLINK_NETFILTER)
        attach_filter(self._socket.socket, own_pid)
        # join only now: nothing of ours gets in before the filter is there
        self._socket.socket.setsockopt(270, 1, _GROUP_NFTABLES)
        self._socket.socket.setblocking(False)

    def start(self, changed: Callable[[str], None]) -> Callable[[], None]:
        """Call `changed(reason)` in the running loop; gives the way to stop."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket.socket, self._read, changed)
        return self._stop

    def _stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.socket)

    def _read(self, changed: Callable[[str], None]) -> None:
        reason = None
        try:
            while True:
                for item in messages(self._socket.receive()):
                    reason = foreign_change(item, self._table) or reason
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            reason = "notifications lost"
        if reason is not None:
            changed(f"{reason} in {self._table} by another program")

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
