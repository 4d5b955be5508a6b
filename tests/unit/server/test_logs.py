"""Logs over real TLS: tail, follow, rotation, truncation, exits, clients that leave, bad requests (K02, K05)."""

from __future__ import annotations

import asyncio
import os

import pytest

from nodewright.kube.objects import (
    Container,
    ContainerState,
    ContainerStateRunning,
    ContainerStateWaiting,
    ContainerStatus,
    ObjectMeta,
    Pod,
    PodSpec,
    PodStatus,
)

T = "2016-10-06T00:17:09.669794202Z"
PATH = "/containerLogs/ns/p/c"


def line(text, tag="F"):
    return f"{T} stdout {tag} {text}\n"


@pytest.fixture
def log(pods):
    """A running container with a log; give the log's path."""
    state = ContainerState(running=ContainerStateRunning(T))
    status = ContainerStatus("c", True, 0, "", "", state, container_id="nodewright://1")
    meta = ObjectMeta(name="p", namespace="ns", uid="u")
    pods.items = [
        Pod(meta, PodSpec(containers=[Container("c"), Container("d")]), PodStatus(container_statuses=[status]))
    ]
    pods.parts["nodewright://1"] = ("ns_p_u", "c", "0.log")
    pods.exits["nodewright://1"] = asyncio.Event()
    path = pods.log_root / "ns_p_u" / "c" / "0.log"
    path.parent.mkdir(parents=True)
    path.write_text("".join(line(f"line {i}") for i in range(5)))
    return path


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "line 0\nline 1\nline 2\nline 3\nline 4\n"),
        ("?tailLines=2", "line 3\nline 4\n"),
        ("?tailLines=0", ""),
        ("?tailLines=99", "line 0\nline 1\nline 2\nline 3\nline 4\n"),
        ("?tailLines=1&timestamps=true", f"{T} line 4\n"),
        ("?limitBytes=9", "line 0\nli"),
        ("?sinceTime=2020-01-01T00:00:00Z", ""),
        ("?sinceSeconds=1000000000", "line 0\nline 1\nline 2\nline 3\nline 4\n"),
        ("?stream=Stderr", ""),
    ],
)
async def test_reading(admin, log, query, expected):
    assert await admin.get(PATH + query) == (200, expected)


async def test_partial_pieces_and_a_cut_end(admin, log):
    log.write_text(line("a", "P") + line("b") + line("cut off")[:-1])
    assert await admin.get(PATH) == (200, "ab\ncut off\n")


async def test_a_big_log_arrives_whole(admin, log):
    text = "".join(line("x" * 1000 + str(i)) for i in range(2000))
    log.write_text(text)
    status, body = await admin.get(PATH)
    assert (status, body.count("\n"), body.endswith("x1999\n")) == (200, 2000, True)


async def test_a_line_without_end_does_not_fill_the_memory(admin, log):
    with log.open("ab") as file:
        for _ in range(6):
            file.write(b"y" * (1 << 19))
        file.write(b"\n" + line("after").encode())
    status, body = await admin.get(PATH)
    assert status == 200
    assert body.endswith("line 4\nafter\n")


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/containerLogs/ns/gone/c", 404, 'pod "gone" does not exist'),
        ("/containerLogs/other/p/c", 404, 'pod "p" does not exist'),
        ("/containerLogs/ns/p/x", 404, 'container "x" not found in pod "p"'),
        ("/containerLogs/ns/p/d", 400, 'container "d" in pod "p" is not available'),
        (PATH + "?previous=true", 400, 'previous terminated container "c" in pod "p" not found'),
        (PATH + "?tailLines=-1", 422, "tailLines"),
        (PATH + "?limitBytes=0", 422, "limitBytes"),
        (PATH + "?sinceSeconds=x", 400, "sinceSeconds"),
    ],
)
async def test_refusals_say_why(admin, log, path, status, text):
    got, body = await admin.get(path)
    assert got == status
    assert text in body


async def test_waiting_containers(admin, log, pods):
    pods.items[0].status.container_statuses[0].state = ContainerState(
        waiting=ContainerStateWaiting("ContainerCreating")
    )
    status, body = await admin.get(PATH)
    assert (status, body) == (400, 'container "c" in pod "p" is waiting to start: ContainerCreating\n')


async def test_a_log_that_is_gone_or_forgotten(admin, log, pods):
    log.unlink()
    assert (await admin.get(PATH))[0] == 400
    pods.parts.clear()
    assert (await admin.get(PATH))[0] == 400


async def test_a_log_that_is_a_link_is_not_read(admin, log, tmp_path, caplog):
    (tmp_path / "shadow").write_text(line("secret"))
    log.unlink()
    log.symlink_to(tmp_path / "shadow")
    status, body = await admin.get(PATH)
    assert status == 500
    assert "secret" not in body
    assert "is not read" in caplog.text


class Follower:
    """Reads a followed log line by line."""

    def __init__(self, response):
        self.response = response

    async def next(self, count=1):
        async with asyncio.timeout(10):
            return [(await self.response.content.readline()).decode().rstrip("\n") for _ in range(count)]

    async def at_end(self):
        async with asyncio.timeout(10):
            return await self.response.content.read() == b""


@pytest.fixture
async def follow(admin, log):
    responses = []

    async def start(query=""):
        response = await admin.session.get(f"{admin.base}{PATH}?follow=true{query}")
        assert response.status == 200
        responses.append(response)
        return Follower(response)

    yield start
    for response in responses:
        response.close()


def append(log, text):
    with log.open("a") as file:
        file.write(text)


async def test_follow_until_the_exit(follow, log, pods):
    follower = await follow("&tailLines=1")
    assert await follower.next() == ["line 4"]
    append(log, line("new"))
    assert await follower.next() == ["new"]
    append(log, line("half")[:-3])
    append(log, line("half")[-3:])
    assert await follower.next() == ["half"]
    append(log, line("last words"))
    pods.exits["nodewright://1"].set()
    assert await follower.next() == ["last words"]
    assert await follower.at_end()


async def test_follow_starts_before_there_is_output(follow, log):
    log.write_text("")
    follower = await follow()
    append(log, line("first"))
    assert await follower.next() == ["first"]


async def test_follow_of_a_container_that_has_exited_ends(follow, pods):
    pods.exits["nodewright://1"].set()
    follower = await follow()
    assert len(await follower.next(5)) == 5
    assert await follower.at_end()


async def test_follow_through_rotations(follow, log):
    follower = await follow("&tailLines=0")
    for i in range(3):
        append(log, line(f"old {i}"))
        os.rename(log, f"{log}.2020010{i}")
        append(log, line(f"new {i}"))
        assert await follower.next(2) == [f"old {i}", f"new {i}"]
    # a rotation that writes the new file aside and renames it over
    append(log, line("before"))
    assert await follower.next() == ["before"]
    aside = log.with_suffix(".tmp")
    aside.write_text(line("after"))
    os.rename(aside, log)
    assert await follower.next() == ["after"]


async def test_follow_through_a_truncation(follow, log):
    follower = await follow("&tailLines=0")
    append(log, line("one"))
    assert await follower.next() == ["one"]
    os.truncate(log, 0)
    append(log, line("two"))
    assert await follower.next() == ["two"]


async def test_follow_a_log_that_is_removed(follow, log, pods):
    follower = await follow("&tailLines=1")
    await follower.next()
    log.unlink()
    log.parent.rmdir()
    pods.exits["nodewright://1"].set()
    assert await follower.at_end()


async def test_follow_does_not_follow_a_link_that_replaces_the_log(follow, log, tmp_path):
    follower = await follow("&tailLines=1")
    await follower.next()
    (tmp_path / "shadow").write_text(line("secret"))
    log.unlink()
    log.symlink_to(tmp_path / "shadow")
    with pytest.raises(Exception, match=r"payload|closed|reset|disconnected|Response"):
        assert not await follower.next(), "the stream breaks off; it neither shows the file nor ends as if complete"


async def test_follow_ends_at_the_limit(follow, log):
    follower = await follow("&tailLines=0&limitBytes=6")
    append(log, line("abc") + line("defgh"))
    assert await follower.next(2) == ["abc", "de"]
    assert await follower.at_end()


async def test_a_client_that_leaves_frees_everything(follow, log, pods):
    (await follow()).response.close()  # what is opened once and kept: the inotify instance, a connection for reviews
    before = len(os.listdir("/proc/self/fd"))
    followers = [await follow("&tailLines=1") for _ in range(5)]
    for follower in followers:
        await follower.next()
        follower.response.close()
    async with asyncio.timeout(10):
        while len(os.listdir("/proc/self/fd")) > before:  # noqa: ASYNC110 - nothing tells of closed descriptors
            await asyncio.sleep(0.01)


async def test_many_followers_share_one_inotify_instance(follow, log):
    followers = [await follow("&tailLines=0") for _ in range(20)]
    names = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    links = [os.readlink(name) for name in names if os.path.islink(name)]
    assert sum("inotify" in link for link in links) == 1
    append(log, line("for all"))
    for follower in followers:
        assert await follower.next() == ["for all"]


async def test_stopping_the_server_ends_followers(follow, server):
    follower = await follow("&tailLines=1")
    await follower.next()
    async with asyncio.timeout(10):
        await server.stop()
