"""Which files of a log go, which are compressed, and when a log is rotated."""

from __future__ import annotations

import gzip
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nodewright_agent.pods.logrotation import LogLimits, LogRotator, upkeep
from nodewright_agent.runtime.errors import ContainerStateError
from nodewright_agent.runtime.spec import ContainerRecord, ContainerSpec, ContainerState, Phase


@pytest.mark.parametrize(
    ("siblings", "files", "remove", "compress"),
    [
        (["0.log"], 5, [], []),
        (["0.log", "0.log.1"], 5, [], ["0.log.1"]),
        (["0.log", "0.log.1.gz", "0.log.2"], 5, [], ["0.log.2"]),
        (["0.log", "0.log.1", "0.log.1.gz"], 5, ["0.log.1"], []),
        (["0.log", "0.log.1.tmp", "0.log.1"], 5, ["0.log.1.tmp"], ["0.log.1"]),
        (["0.log.3", "0.log.1.gz", "0.log.2.gz", "0.log.4"], 5, ["0.log.1.gz"], ["0.log.3", "0.log.4"]),
        (["0.log.1.gz", "0.log.2"], 2, ["0.log.1.gz", "0.log.2"], []),
        (["1.log.1", "10.log.1", "0.log"], 2, [], []),
    ],
)
def test_upkeep(siblings, files, remove, compress):
    assert upkeep("0.log", siblings, files) == (remove, compress)


class Runtime:
    """Renames, and begins a new file, as the monitor does."""

    def __init__(self, path: Path, phase: Phase = Phase.RUNNING) -> None:
        spec = ContainerSpec(
            id="c",
            pod_uid="u",
            pod_name="p",
            pod_namespace="n",
            name="c",
            lowers=["/"],
            argv=["x"],
            log_path=str(path),
            cgroup_parent="/t",
        )
        self.record = ContainerRecord(spec=spec, state=ContainerState(phase=phase))
        self.error: Exception | None = None

    async def list(self):
        return [self.record]

    async def rotate_log(self, cid, to):
        path = Path(self.record.spec.log_path)
        path.rename(to)
        if self.error is not None:
            raise self.error
        path.touch()

    async def reopen_log(self, cid):
        Path(self.record.spec.log_path).touch()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "0.log"


def rotator(path, *, size=10, files=5, runtime=None):
    made = LogRotator(runtime or Runtime(path), LogLimits(size, files))
    seconds = iter(range(1000))
    made._now = lambda: datetime.fromtimestamp(next(seconds), UTC)
    return made


def names(path):
    return sorted(os.listdir(path.parent))


async def test_a_log_below_the_limit_stays(path):
    path.write_text("123456789")
    await rotator(path).look()
    assert names(path) == ["0.log"]


async def test_rotated_logs_are_kept_compressed_but_for_the_newest_and_the_oldest_go(path):
    made = rotator(path, files=4)
    for number in range(6):
        path.write_text(f"line {number:08}\n")
        await made.look()
    assert names(path) == [
        "0.log",
        "0.log.19700101-000003.gz",
        "0.log.19700101-000004.gz",
        "0.log.19700101-000005",
    ]
    assert gzip.decompress((path.parent / "0.log.19700101-000004.gz").read_bytes()) == b"line 00000004\n"
    assert (path.parent / "0.log.19700101-000005").read_text() == "line 00000005\n"


async def test_a_rotation_that_was_broken_off_is_ended(path):
    runtime = Runtime(path)
    path.with_name("0.log.20260101-000000").touch()
    await rotator(path, runtime=runtime).look()
    assert names(path) == ["0.log", "0.log.20260101-000000"]
    path.unlink()
    path.with_name("0.log.20260101-000000").unlink()
    await rotator(path, runtime=runtime).look()
    assert names(path) == [], "whoever removed all of a log did not want it"


async def test_two_files_mean_one_rotated_one(path):
    made = rotator(path, files=2)
    for number in range(3):
        path.write_text(f"line {number:08}\n")
        await made.look()
    assert names(path) == ["0.log", "0.log.19700101-000002"]


async def test_a_log_whose_monitor_does_not_answer_gets_its_name_back(path, caplog):
    runtime = Runtime(path)
    runtime.error = ContainerStateError("it has ended")
    path.write_text("a long line\n")
    await rotator(path, runtime=runtime).look()
    assert names(path) == ["0.log"]
    assert path.read_text() == "a long line\n"
    assert "log is not rotated: it has ended" in caplog.text


@pytest.mark.parametrize("phase", [Phase.CREATED, Phase.EXITED])
async def test_only_running_containers_logs_are_rotated(path, phase):
    path.write_text("a long line\n")
    await rotator(path, runtime=Runtime(path, phase)).look()
    assert names(path) == ["0.log"]


async def test_links_that_a_pod_has_put_there_are_not_followed(path, tmp_path, caplog):
    secret = tmp_path.parent / f"{tmp_path.name}-secret"
    secret.write_text("secret that is long enough\n")
    path.symlink_to(secret)
    made = rotator(path)
    await made.look()
    assert names(path) == ["0.log"]
    path.unlink()
    path.write_text("a long line\n")
    (path.parent / "0.log.1").symlink_to(secret)
    await made.look()
    assert names(path) == ["0.log", "0.log.1"], "nothing was compressed, and nothing rotated"
    assert "log is not rotated" in caplog.text
    os.unlink(path.parent / "0.log.1")
    os.link(secret, path.parent / "0.log.1")
    await made.look()
    assert not (path.parent / "0.log.1.gz").exists()
    assert secret.read_text() == "secret that is long enough\n"


async def test_other_limits_hold_at_once(path):
    import asyncio

    path.write_text("a long line\n")
    made = rotator(path, size=1000)
    running = asyncio.create_task(made.run())
    await asyncio.sleep(0)
    made.change(LogLimits(5, 5))
    async with asyncio.timeout(5):
        while len(names(path)) < 2:  # noqa: ASYNC110 - files announce nothing
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
