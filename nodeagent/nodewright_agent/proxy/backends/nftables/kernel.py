"""Transactions and dumps of nf_tables."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Iterator

from nodewright_agent.proxy.backends.base import BackendError
from nodewright_agent.proxy.backends.nftables import wire
from nodewright_agent.proxy.backends.nftables.elements import Dumped, decode
from nodewright_agent.proxy.backends.nftables.wire import NFNL_SUBSYS, Op
from nodewright_agent.proxy.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    Failure,
    NetlinkError,
    NetlinkSocket,
    attributes,
    error_of,
    message,
    string,
    text_of,
)

log = logging.getLogger(__name__)


class TransactionError(BackendError):
    """The kernel refused a transaction; nothing of it is in effect."""

    def __init__(self, failures: list[tuple[str, Failure]]) -> None:
        """Hold what was refused and why."""
        self.failures = failures
        what = "; ".join(f"{name}: {failure}" for name, failure in failures[:3])
        more = f" and {len(failures) - 3} more" if len(failures) > 3 else ""
        super().__init__(f"nftables transaction refused: {what}{more}")

    @property
    def errnos(self) -> set[int]:
        """The distinct error numbers."""
        return {failure.errno for _, failure in self.failures}


class Nftables:
    """A netlink socket for nf_tables, in the network namespace where it was made."""

    def __init__(self) -> None:
        """Open it."""
        self._socket = NetlinkSocket(NETLINK_NETFILTER)

    @property
    def pid(self) -> int:
        """The netlink address under which changes of ours are announced."""
        return self._socket.pid

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def encode(self, ops: Iterable[Op]) -> tuple[bytes, dict[int, str], int]:
        """Give the bytes of a transaction, what each sequence number stands for, and the last number."""
        parts = [message(wire.BATCH_BEGIN, NLM_F_REQUEST, self._socket.next_sequence(), wire.BATCH_HEADER)]
        meaning: dict[int, str] = {}
        listed = list(ops)
        seq = 0
        for index, op in enumerate(listed):
            seq = self._socket.next_sequence()
            flags = op.flags | NLM_F_REQUEST | (NLM_F_ACK if index == len(listed) - 1 else 0)
            meaning[seq] = op.what
            parts.append(message(NFNL_SUBSYS | op.kind, flags, seq, op.payload))
        parts.append(message(wire.BATCH_END, NLM_F_REQUEST, self._socket.next_sequence(), wire.BATCH_HEADER))
        return b"".join(parts), meaning, seq

    def commit(self, ops: Iterable[Op]) -> None:
        """Apply messages all together or not at all. Raises TransactionError.

        The kernel has done the work when the send returns, and its answers wait in the socket: nothing to wait for.
        """
        data, meaning, last = self.encode(ops)
        if not meaning:
            return
        self._socket.send(data)
        failures: list[tuple[str, Failure]] = []
        acknowledged = False
        try:
            for item in self._socket.waiting():
                if item.type != NLMSG_ERROR:
                    continue
                code = error_of(item.payload)
                if code:
                    failures.append((meaning.get(item.seq, "batch"), Failure(item.seq, code)))
                acknowledged = acknowledged or (item.seq == last and not code)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            failures.append(("answers lost", Failure(0, errno.ENOBUFS)))
        if failures:
            raise TransactionError(failures)
        if not acknowledged:
            raise BackendError("nftables transaction: no acknowledgement from the kernel")

    def dump(self, family: int, table: str, name: str) -> Iterator[Dumped]:
        """Give the elements of a set. Raises NetlinkError (ENOENT where there is no such set)."""
        payload = wire.nfgen(family) + string(1, table) + string(2, name)
        for item in self._socket.dump(NFNL_SUBSYS | wire.GETSETELEM, payload):
            yield from decode(item.payload)

    def tables(self, family: int) -> set[str]:
        """Give the names of a family's tables."""
        found = self._socket.dump(NFNL_SUBSYS | wire.GETTABLE, wire.nfgen(family))
        return {text_of(attributes(item.payload, 4).get(1, b"")) for item in found}

    def count(self, kind: int, family: int, table: str, name_attribute: int) -> int:
        """Count the objects of a table that a GET message of this kind lists."""
        payload = wire.nfgen(family) + string(1, table)
        return sum(
            text_of(attributes(item.payload, 4).get(name_attribute, b"")) == table
            for item in self._socket.dump(NFNL_SUBSYS | kind, payload)
        )


def usable(family: int) -> str | None:
    """Try whether this kernel has nf_tables with NAT for an address family; gives what is missing, or None.

    A table with a NAT chain is created and deleted within one transaction, which leaves nothing.
    """
    name = f"nodewright-probe-{os.getpid()}"
    try:
        kernel = Nftables()
    except OSError as error:
        return f"no netfilter netlink: {error.strerror}"
    try:
        kernel.commit(
            [
                wire.new_table(family, name, "probe"),
                wire.new_base_chain(family, name, "nat", "nat", wire.HOOK_PREROUTING, -100),
                wire.delete_table(family, name),
            ]
        )
    except (TransactionError, NetlinkError, OSError) as error:
        return str(error)
    finally:
        kernel.close()
    return None
