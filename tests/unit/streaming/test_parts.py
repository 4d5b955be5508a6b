"""Queries, statuses, sizes and bounded inboxes."""

from __future__ import annotations

import asyncio
import json

import pytest
from multidict import MultiDict

from nodewright_agent.heap import Trimmer
from nodewright_agent.server.streaming import options
from nodewright_agent.server.streaming.flow import Inbox
from nodewright_agent.server.streaming.options import BadQuery, RemoteOptions
from nodewright_agent.server.streaming.sizes import Sizes, latest
from nodewright_agent.server.streaming.status import SUCCESS, exited, failed


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"output": "1", "error": "1"}, RemoteOptions(False, True, True, False)),
        ({"input": "1", "output": "1", "tty": "1", "error": "1"}, RemoteOptions(True, True, False, True)),
        ({"stdin": "true"}, RemoteOptions(True, False, False, False)),
        ({"input": "0", "stderr": "true"}, RemoteOptions(False, False, True, False)),
    ],
)
def test_streams_that_are_asked_for(query, wanted):
    assert options.remote_options(MultiDict(query)) == wanted


@pytest.mark.parametrize("query", [{}, {"tty": "1"}, {"tty": "1", "error": "1"}, {"output": "yes"}])
def test_no_stream_is_asked_for(query):
    with pytest.raises(BadQuery, match="you must specify at least 1 of stdin, stdout, stderr"):
        options.remote_options(MultiDict(query))


def test_ports():
    assert options.ports(MultiDict([("port", "80"), ("port", "443,8080")])) == [80, 443, 8080]
    assert options.ports(MultiDict(ports="5")) == [5]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ([], 'query parameter "port" is required'),
        ([("port", "")], 'query parameter "port" cannot be empty'),
        ([("port", "80,")], 'unable to parse "" as a port'),
        ([("port", "0")], 'port "0" must be > 0'),
        ([("port", "65536")], 'unable to parse "65536" as a port'),
        ([("port", "-1")], 'unable to parse "-1" as a port'),
        ([("port", "٣")], 'unable to parse "٣" as a port'),
        ([("port", "9" * 5000)], 'unable to parse "9{100}" as a port'),
        ([("port", ",".join(["1"] * 101))], "101 ports: at most 100"),
    ],
)
def test_bad_ports(query, text):
    with pytest.raises(BadQuery, match=text):
        options.ports(MultiDict(query))


def test_how_a_command_ended():
    assert json.loads(exited(["x"], 0).encode(structured=True)) == {"metadata": {}, "status": "Success"}
    assert SUCCESS.encode(structured=False) == b""
    status = json.loads(exited(["sh", "-c"], 7).encode(structured=True))
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
    assert exited(["sh"], 7).encode(structured=False).endswith(b"error executing command [sh], exit code 7")
    status = json.loads(failed("no").encode(structured=True))
    assert (status["code"], status["reason"], status["message"]) == (
        500,
        "InternalError",
        "Internal error occurred: no",
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", (None, "")),
        ('{"Width":80,"Height":24}\n', ((80, 24), "")),
        ('{"Width":80,"Height":24} {"Width":81,"Height":25}{"Wi', ((81, 25), '{"Wi')),
        ('{"Width":0,"Height":0}', (None, "")),
        ("{", (None, "{")),
    ],
)
def test_sizes_of_a_terminal(text, found):
    assert latest(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "[]}",
        '{"Width":"80","Height":1}',
        '{"Width":65536,"Height":1}',
        '{"Width":-1,"Height":1}',
        "{x}",
        "1}",
        '{"a":' * 100_000 + "}",
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match=r"."):
        latest(text)


async def test_a_flood_of_sizes_is_one_change():
    inbox = Inbox()
    for width in range(1, 5000):
        await inbox.put(b'{"Width":%d,"Height":9}' % width)
    sizes = Sizes(inbox)
    assert await sizes.next() == (4999, 9)
    inbox.end()
    assert await sizes.next() is None


async def test_a_size_without_an_end_ends_the_sizes():
    inbox = Inbox()
    await inbox.put(b"{" + b" " * 5000)
    assert await Sizes(inbox).next() is None


async def test_who_sends_too_much_waits():
    inbox = Inbox(limit=10)
    await inbox.put(b"12345")
    waiting = asyncio.create_task(inbox.put(b"67890"))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert await inbox.read() == b"1234567890"
    await waiting


async def test_nobody_waits_for_who_does_not_read():
    inbox = Inbox(limit=1)
    waiting = asyncio.create_task(inbox.put(b"x"))
    await asyncio.sleep(0)
    inbox.discard()
    await waiting
    await inbox.put(b"y" * 100)
    assert inbox.ended
    assert await inbox.read() == b""


async def test_what_came_before_the_end_is_read():
    inbox = Inbox()
    await inbox.put(b"a")
    inbox.end()
    await inbox.put(b"late")
    assert await inbox.read() == b"a"
    assert await inbox.read() == b""


async def test_memory_is_given_back_after_the_last_session(monkeypatch):
    trimmer, calls = Trimmer(quiet=0.02), []
    monkeypatch.setattr(trimmer, "_trim", calls.append)
    trimmer.idle()
    trimmer.busy()
    await asyncio.sleep(0.05)
    assert calls == []
    trimmer.idle()
    trimmer.idle()
    await asyncio.sleep(0.05)
    assert calls == [0]
