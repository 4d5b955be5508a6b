"""Images taken from a real containerd of the test's own, and what happens when it cannot give them."""

import asyncio
import json
import logging
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from nodewright_agent.runtime.hostspace import HostSpace
from nodewright_agent.runtime.images.containerd import ORIGIN, Containerd
from support.image_makers import digest, entry, folder, image, oci_files, tar, write_archive

pytestmark = pytest.mark.needs_root

NAME = "docker.io/library/tool:1"


class OwnContainerd:
    """A containerd with directories and a socket of its own, and `ctr` for it."""

    def __init__(self, work: Path) -> None:
        work.mkdir()
        self.socket, self.ctr = work / "c.sock", work / "ctr"
        config = work / "config.toml"
        off = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs"]
        lines = ["version = 2", f"disabled_plugins = {json.dumps(off)}", f'root = "{work}/root"']
        lines += [f'state = "{work}/state"', "[grpc]", f'address = "{self.socket}"', "[ttrpc]", f'address = "{work}/t"']
        config.write_text("\n".join(lines) + "\n")
        self.ctr.write_text(f'#!/bin/sh\nexec ctr --address {self.socket} "$@"\n')
        self.ctr.chmod(0o755)
        self.log = (work / "log").open("wb")
        self.process = subprocess.Popen(["containerd", "--config", str(config)], stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 20
        while subprocess.run([self.ctr, "version"], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, "containerd does not answer"
            time.sleep(0.1)

    def run(self, *words: str | Path) -> str:
        return subprocess.run([self.ctr, "-n", "k8s.io", *words], check=True, capture_output=True, text=True).stdout

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
        self.log.close()


@pytest.fixture(scope="module")
def containerd(tmp_path_factory):
    if shutil.which("containerd") is None:
        pytest.skip("needs containerd")
    here = OwnContainerd(tmp_path_factory.mktemp("containerd") / "c")
    yield here
    here.close()


@pytest.fixture
def imported(containerd, tmp_path):
    """Imports an image whose one file holds a text; its digest in containerd."""

    def bring(text: str, name: str = NAME) -> str:
        made = image(tar(folder("etc"), entry("etc/text", data=text.encode())))
        path = write_archive(tmp_path / "image.tar", oci_files((made, name)))
        containerd.run("images", "import", "--no-unpack", path)
        table = containerd.run("images", "ls", f"name=={name}").splitlines()
        return next(line.split()[2] for line in table if line.startswith(name))

    yield bring
    for name in containerd.run("images", "ls", "-q").split():
        containerd.run("images", "rm", "--sync", name)


@pytest.fixture
def source(containerd, store):
    return Containerd(store, HostSpace(), program=str(containerd.ctr))


def text_of(found):
    return (found.layers[0] / "etc/text").read_text()


@pytest.mark.parametrize("ref", ["tool:1", "library/tool:1", "docker.io/library/tool:1"])
async def test_an_image_is_found_by_every_spelling(source, imported, store, ref):
    target = imported("one")
    found = await source.current(ref, None)
    assert text_of(found) == "one"
    assert found.names == [NAME]
    assert found.digests == [f"docker.io/library/tool@{target}"]
    assert store.resolve("tool:1") == found
    assert store.origin("tool:1") == ORIGIN


async def test_localhost_and_latest(source, imported):
    imported("local", "localhost/demo:latest")
    assert text_of(await source.current("localhost/demo", None)) == "local"


async def test_an_image_that_moved_is_taken_anew_and_one_that_did_not_is_not(source, imported, containerd):
    imported("old")
    old = await source.current("tool:1", None)
    assert await source.current("tool:1", old) is old
    imported("new")
    new = await source.current("tool:1", old)
    assert text_of(new) == "new"
    containerd.run("images", "rm", "--sync", NAME)
    assert await source.current("tool:1", new) is new, "what we have stays when containerd forgets it"


async def test_an_image_of_a_registry_stays_the_registrys(source, imported, store, tmp_path):
    made = image(tar(folder("etc"), entry("etc/text", data=b"pulled")))
    await store.load(write_archive(tmp_path / "own.tar", oci_files((made, NAME))))
    ours = store.resolve("tool:1")
    imported("containerd's")
    assert await source.current("tool:1", ours) is ours


async def test_by_digest_only_the_very_image(source, imported, containerd):
    target = imported("digest")
    wanted = f"docker.io/library/tool@{target}"
    assert await source.current(wanted, None) is None, "containerd knows it by its tag alone"
    containerd.run("images", "tag", NAME, wanted)
    assert text_of(await source.current(wanted, None)) == "digest"
    other = f"docker.io/library/tool@{digest(b'something else')}"
    containerd.run("images", "tag", NAME, other)
    assert await source.current(other, None) is None, "a name that lies about its digest gives nothing"


async def test_discarded_content_falls_through_with_a_log_line(source, imported, containerd, caplog):
    target = imported("gone")
    for blob in containerd.run("content", "ls", "-q").split():
        if blob != target:
            containerd.run("content", "rm", blob)
    with caplog.at_level(logging.WARNING):
        assert await source.current("tool:1", None) is None
    (record,) = [one for one in caplog.records if "cannot give an image" in one.message]
    assert record.image == NAME
    assert "not found" in record.error


async def test_many_at_once_take_one_copy(source, imported, store):
    imported("many")
    found = await asyncio.gather(*(source.current("tool:1", None) for _ in range(5)))
    assert {one.id for one in found} == {store.resolve("tool:1").id}


async def test_without_containerd_it_is_said_once(store, caplog):
    source = Containerd(store, HostSpace(), program="/nonexistent/ctr")
    with caplog.at_level(logging.WARNING):
        assert await source.current("tool:1", None) is None
        assert await source.current("tool:2", None) is None
    assert len([one for one in caplog.records if "cannot be asked" in one.message]) == 1
