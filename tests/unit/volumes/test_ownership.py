"""fsGroup of volumes that outlive their Pods."""

import os
import stat

import pytest

from nodewright_agent.pods.volumes.ownership import hand_over

pytestmark = pytest.mark.needs_root

GROUP = 4711


def seen(path):
    info = os.lstat(path)
    return stat.S_IMODE(info.st_mode), info.st_gid


@pytest.fixture
def volume(tmp_path):
    """A directory in a directory with a file, a link out of it, and a FIFO."""
    made = tmp_path / "volume"
    (made / "inner").mkdir(parents=True)
    (made / "inner").chmod(0o700)
    made.chmod(0o755)
    (made / "inner/file").write_text("x")
    (made / "inner/file").chmod(0o600)
    (tmp_path / "outside").write_text("of others")
    (tmp_path / "outside").chmod(0o600)
    (made / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(made / "fifo", 0o600)
    return made


@pytest.mark.parametrize("policy", ["Always", "OnRootMismatch"])
def test_a_volume_is_handed_over_but_nothing_beyond_it(volume, policy):
    hand_over(str(volume), GROUP, policy)
    assert seen(volume) == (0o2775, GROUP)
    assert seen(volume / "inner") == (0o2770, GROUP)
    assert seen(volume / "inner/file") == (0o660, GROUP)
    assert seen(volume / "fifo")[1] == seen(volume / "link")[1] == GROUP
    assert seen(volume.parent / "outside") == (0o600, 0)


@pytest.mark.parametrize(("policy", "group"), [("Always", GROUP), ("OnRootMismatch", 0)])
def test_what_came_later_is_looked_at_where_the_root_is_not_enough(volume, policy, group):
    hand_over(str(volume), GROUP, policy)
    os.chown(volume / "inner/file", 0, 0)
    hand_over(str(volume), GROUP, policy)
    assert seen(volume / "inner/file")[1] == group


@pytest.mark.parametrize("lacking", [stat.S_ISGID, stat.S_IWGRP, stat.S_IXGRP, "group"])
def test_a_root_that_lacks_something_is_a_mismatch(volume, lacking):
    hand_over(str(volume), GROUP, "Always")
    os.chown(volume / "inner/file", 0, 0)
    if lacking == "group":
        os.chown(volume, 0, 0)
        volume.chmod(0o2775)
    else:
        volume.chmod(seen(volume)[0] & ~lacking)
    hand_over(str(volume), GROUP, "OnRootMismatch")
    assert seen(volume) == (0o2775, GROUP)
    assert seen(volume / "inner/file")[1] == GROUP


def test_a_hand_over_that_was_cut_short_is_done_again(volume, monkeypatch):
    """The root is the last: where a killed agent has not come so far, OnRootMismatch starts over."""
    real, done = os.fchown, []

    def killed(fd, uid, gid):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(fd)
        real(fd, uid, gid)

    monkeypatch.setattr(os, "fchown", killed)
    with pytest.raises(KeyboardInterrupt):
        hand_over(str(volume), GROUP, "OnRootMismatch")
    monkeypatch.undo()
    assert seen(volume)[1] == 0
    hand_over(str(volume), GROUP, "OnRootMismatch")
    assert {seen(path)[1] for path in (volume, volume / "inner", volume / "inner/file")} == {GROUP}
