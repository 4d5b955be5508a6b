"""Dumps that break off, or that something changed under."""

import errno
import struct

import pytest

from nodewright_agent.proxy.netlink import (
    NETLINK_ROUTE,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    NetlinkError,
    NetlinkSocket,
    message,
)

ITEM = 16


class Kernel:
    """Answers the nth dump with the nth list of (type, flags, payload), each in a datagram of its own."""

    def __init__(self, *dumps):
        self.dumps, self.waiting, self.seq = list(dumps), [], 0

    def send(self, data):
        self.seq = struct.unpack_from("=I", data, 8)[0]
        self.waiting = list(self.dumps.pop(0))

    def recv(self, _size):
        kind, flags, payload = self.waiting.pop(0)
        return message(kind, flags, self.seq, payload)


@pytest.fixture
def asked():
    opened = []

    def sock(*dumps):
        made = NetlinkSocket(NETLINK_ROUTE)
        opened.append((made, made.socket))
        made.socket = Kernel(*dumps)
        made.reserve = lambda size: None
        return made

    yield sock
    for made, real in opened:
        made.socket = real
        made.close()


def done(flags=0, code=0):
    return NLMSG_DONE, flags, struct.pack("=i", code)


def test_a_dump_that_the_kernel_breaks_off_is_an_error(asked):
    with pytest.raises(NetlinkError) as caught:
        list(asked([(ITEM, 0, b"one1"), done(code=-errno.EMSGSIZE)]).dump(18, b""))
    assert caught.value.errno == errno.EMSGSIZE
    with pytest.raises(NetlinkError) as caught:
        list(asked([(NLMSG_ERROR, 0, struct.pack("=i", -errno.EPERM))]).dump(18, b""))
    assert caught.value.errno == errno.EPERM


@pytest.mark.parametrize(
    "torn",
    [
        [(ITEM, 0, b"one1"), (ITEM, NLM_F_DUMP_INTR, b"thre"), done()],
        [(ITEM, 0, b"one1"), done(flags=NLM_F_DUMP_INTR)],
    ],
)
def test_a_snapshot_is_of_one_moment(asked, torn):
    whole = [(ITEM, 0, b"one1"), (ITEM, 0, b"two2"), (ITEM, 0, b"thre"), done()]
    assert [item.payload for item in asked(torn, torn, whole).snapshot(18, b"")] == [b"one1", b"two2", b"thre"]


def test_changes_that_never_end_are_an_error(asked):
    with pytest.raises(NetlinkError) as caught:
        asked(*[[done(flags=NLM_F_DUMP_INTR)]] * 100).snapshot(18, b"")
    assert caught.value.errno == errno.EINTR
