"""An OCI runtime that misbehaves (H02): the container fails with a bounded reason, nothing is left, others go on."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from nodewright_agent.runtime import processes
from nodewright_agent.runtime.errors import ContainerRuntimeError
from support.runtime_host import Host

pytestmark = pytest.mark.needs_root

REAL = shutil.which("runc")
FLOOD = "head -c 50000000 /dev/zero | tr '\\0' x"
"""More than any pipe holds, in one line."""


def misbehaving(path: Path, verb: str, script: str) -> str:
    """A runtime that is runc but for one verb for the container ``bad``."""
    path.write_text(f'#!/bin/sh\ncase " $* " in *" {verb} "*" bad "*) {script} ;; esac\nexec {REAL} "$@"\n')
    path.chmod(stat.S_IRWXU)
    return str(path)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        pytest.param("exit 1", "", id="fails without a word"),
        pytest.param("exit 0", "", id="says that it is done and has done nothing"),
        pytest.param("kill -9 $$", "", id="is killed"),
        # conmon reads what it says once it has ended, which it cannot before somebody reads.
        pytest.param(f"{FLOOD} >&2; exit 1", "did not answer within 3 s", id="says very much"),
        pytest.param("echo 'level=error msg=\"no \\xff way' >&2; exit 1", "way", id="says what is no text"),
        pytest.param("kill -STOP $$", "did not answer within 3 s", id="hangs"),
        pytest.param(f"{FLOOD}; kill -STOP $$", "did not answer within 3 s", id="hangs after very much output"),
    ],
)
async def test_a_container_that_cannot_be_created(host: Host, tmp_path: Path, script: str, told: str):
    program = misbehaving(tmp_path / "runc", "create", script)
    runtime = host.runtime(runc=program, timeout=3.0)
    await runtime.open()
    try:
        await runtime.create(host.spec("good", "sleep", "1000"))
        await runtime.start("good")
        with pytest.raises(ContainerRuntimeError) as caught:
            await runtime.create(host.spec("bad", "sleep", "1000"))
        assert told in str(caught.value)
        assert 0 < len(str(caught.value)) < 4096
        assert [one.id for one in await runtime.list() if one.id != "good"] == []
        assert runtime.store.ids() == {"good"}
        assert "/bad" not in Path("/proc/self/mountinfo").read_text()
        assert [words for words in running() if program in words and "bad" in words] == []
        await runtime.kill("good", 9)
        assert (await runtime.wait("good")).code == 137
    finally:
        await runtime.close()


async def test_a_runtime_that_is_gone(host: Host, tmp_path: Path):
    program = misbehaving(tmp_path / "runc", "none", "")
    runtime = host.runtime(runc=program)
    await runtime.open()
    try:
        os.rename(program, tmp_path / "away")
        with pytest.raises(ContainerRuntimeError):
            await runtime.create(host.spec("bad", "sleep", "1000"))
        assert runtime.store.ids() == set()
        os.rename(tmp_path / "away", program)
        await runtime.create(host.spec("good", "true"))
        await runtime.start("good")
        assert (await runtime.wait("good")).code == 0
    finally:
        await runtime.close()


def running() -> list[list[str]]:
    return [processes.command_line(pid) for pid in processes.all_pids()]
