"""What is done with a block device before it is mounted."""

import pytest

from nodewright_agent.pods.volumes import disks
from nodewright_agent.pods.volumes.errors import VolumeError
from nodewright_agent.runtime.hostspace import HostSpace

BLANK, EXT4 = (2, b""), (0, b"TYPE=ext4\n")


@pytest.fixture
def tried(monkeypatch):
    """The commands that were run; ``answers`` say with which code and output."""
    seen, answers = [], {}

    async def run(command, timeout):
        seen.append(command[0])
        answer = answers.get(command[0], (0, b""))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(disks.processes, "run", run)
    monkeypatch.setattr(disks.syscalls, "mount", lambda device, target, kind: seen.append(f"mount {kind}"))
    return seen, answers


async def mount(tmp_path, **more):
    await disks.mount_device("/dev/x", tmp_path / "m", "ext4", HostSpace(), **more)


@pytest.mark.parametrize("fsck", [(0, b""), (1, b"mended"), (8, b"odd"), FileNotFoundError()])
async def test_a_file_system_is_checked_and_mounted(tried, tmp_path, fsck):
    seen, answers = tried
    answers.update({"blkid": EXT4, "fsck": fsck})
    await mount(tmp_path)
    assert seen == ["blkid", "fsck", "mount ext4"]


async def test_errors_that_are_left_keep_it_from_being_mounted(tried, tmp_path):
    seen, answers = tried
    answers.update({"blkid": EXT4, "fsck": (4, b"bad\n")})
    with pytest.raises(VolumeError, match="'fsck' found errors on device /dev/x but could not correct them: bad"):
        await mount(tmp_path)
    assert seen == ["blkid", "fsck"]


async def test_what_is_only_read_is_not_written(tried, tmp_path):
    seen, answers = tried
    answers["blkid"] = EXT4
    await mount(tmp_path, read_only=True)
    assert seen == ["blkid", "mount ext4"]
    answers["blkid"] = BLANK
    with pytest.raises(VolumeError, match="cannot mount unformatted disk /dev/x"):
        await mount(tmp_path, read_only=True)


async def test_a_blank_device_is_formatted(tried, tmp_path):
    seen, answers = tried
    answers["blkid"] = BLANK
    await mount(tmp_path)
    assert seen == ["blkid", "mkfs.ext4", "mount ext4"]
