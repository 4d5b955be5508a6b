import os
import stat

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.kube.api.volumes import DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector
from nodewright.kube.objects import ConfigMap, ObjectMeta, Pod, Secret
from nodewright_agent import failpoints
from nodewright_agent.pods.volumes import atomic, payload
from nodewright_agent.pods.volumes.errors import VolumeError
from nodewright_agent.pods.volumes.ownership import fs_group, fs_user
from nodewright_agent.pods.volumes.payload import File

META = ObjectMeta(name="x", namespace="ns")
CM = ConfigMap(metadata=META, data={"a": "1", "b": "2"}, binary_data={"bin": b"\xff"})


def test_keys_become_files():
    found = payload.config_map(CM, [], 0o644, optional=False)
    assert found == {"a": File(b"1", 0o644), "b": File(b"2", 0o644), "bin": File(b"\xff", 0o644)}
    items = [KeyToPath(key="a", path="dir/file", mode=0o400), KeyToPath(key="bin", path="b")]
    assert payload.config_map(CM, items, 0o600, optional=False) == {
        "dir/file": File(b"1", 0o400),
        "b": File(b"\xff", 0o600),
    }
    assert payload.config_map(None, [], 0o644, optional=True) == {}
    assert payload.secret(Secret(metadata=META, data={"k": b"v"}), [], 0o400, optional=False) == {
        "k": File(b"v", 0o400)
    }


def test_missing_keys():
    items = [KeyToPath(key="none", path="p")]
    assert payload.config_map(CM, items, 0o644, optional=True) == {}
    with pytest.raises(VolumeError, match=r"^configmap references non-existent config key: none$"):
        payload.config_map(CM, items, 0o644, optional=False)
    with pytest.raises(VolumeError, match=r"^references non-existent secret key: none$"):
        payload.secret(Secret(metadata=META), items, 0o644, optional=False)


def test_downward_files():
    pod = msgspec.convert({"metadata": {"name": "p", "labels": {"l": "v"}}}, Pod)
    good = DownwardAPIVolumeFile(path="labels", field_ref=ObjectFieldSelector(field_path="metadata.labels"))
    assert payload.downward(pod, [good], 0o644, {}) == {"labels": File(b'l="v"', 0o644)}
    bad = DownwardAPIVolumeFile(path="x", field_ref=ObjectFieldSelector(field_path="status.podIP"))
    with pytest.raises(VolumeError, match=r"^\[unsupported fieldPath: status.podIP, unsupported"):
        payload.downward(pod, [bad, good, bad], 0o644, {})


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "must not be empty"),
        ("/abs", "must be relative"),
        ("..", "'..'"),
        ("a/../b", "'..'"),
        ("a/..", "'..'"),
        ("..data", "must not start with '..'"),
        ("..2026_x", "must not start with '..'"),
        ("./..data", "must not start with '..'"),
        ("././/..data", "must not start with '..'"),
        ("a" * 256, "filenames"),
        ("a/" * 2100, "4096"),
        ("a\0b", "NUL"),
        (".", "must not be empty"),
    ],
)
def test_paths_that_would_leave_the_volume(path, said):
    with pytest.raises(VolumeError) as caught:
        payload.check({path: File(b"", 0o644)})
    assert str(caught.value).startswith("invalid path: ")
    assert said in str(caught.value)


def test_a_file_cannot_be_a_directory_too():
    with pytest.raises(VolumeError, match="both a file and a directory"):
        payload.check({"a": File(b"", 0o644), "a/b": File(b"", 0o644)})
    assert set(payload.check({"./a//b": File(b"", 0o644)})) == {"a/b"}


PATHS = st.lists(st.text("ab.", min_size=1, max_size=3), min_size=1, max_size=3).map("/".join)


@given(
    st.dictionaries(PATHS, st.binary(max_size=5), max_size=4), st.dictionaries(PATHS, st.binary(max_size=5), max_size=4)
)
def test_a_volume_shows_exactly_the_last_payload(tmp_path_factory, first, second):
    directory = tmp_path_factory.mktemp("v")
    shown = {}
    for files in (first, second):
        try:
            shown = {
                path: file.data for path, file in payload.check({p: File(d, 0o644) for p, d in files.items()}).items()
            }
        except VolumeError:
            continue
        atomic.write(directory, {p: File(d, 0o644) for p, d in files.items()})
        visible = {
            os.path.relpath(os.path.join(at, name), directory): (directory / at / name).read_bytes()
            for top in os.listdir(directory)
            if not top.startswith("..")
            for at, _, names in (
                [(str(directory), [], [top])] if (directory / top).is_file() else os.walk(directory / top)
            )
            for name in names
        }
        assert visible == shown
        assert len([name for name in os.listdir(directory) if name.startswith("..2")]) == 1


def write(directory, **files):
    return atomic.write(directory, {name: File(text.encode(), 0o640) for name, text in files.items()})


def test_atomic_updates(tmp_path):
    assert write(tmp_path, a="1", b="2")
    first = os.readlink(tmp_path / "..data")
    assert os.readlink(tmp_path / "a") == "..data/a"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "..data/").stat().st_mode) == 0o755
    assert not write(tmp_path, a="1", b="2")
    assert os.readlink(tmp_path / "..data") == first
    with open(tmp_path / "a") as reader:
        assert write(tmp_path, a="changed")
        assert reader.read() == "1"  # who has it open keeps the old version
    assert (tmp_path / "a").read_text() == "changed"
    assert not (tmp_path / "b").is_symlink()
    assert not (tmp_path / first).exists()


def test_a_changed_mode_alone_is_an_update(tmp_path):
    write(tmp_path, a="1")
    assert atomic.write(tmp_path, {"a": File(b"1", 0o600)})


@pytest.mark.parametrize("then", ["the new version", "back to the old one"])
@pytest.mark.parametrize("step", ["written", "prepared", "swapped", "linked", "unlinked"])
def test_killed_at_any_step_one_version_is_seen_and_the_next_write_tidies(tmp_path, step, then):
    old, new = {"a": "old", "gone": "old"}, {"a": "new", "b": "new"}
    write(tmp_path, **old)
    failpoints.configure(f"atomic.{step}=error")
    try:
        with pytest.raises(failpoints.FailpointError):
            write(tmp_path, **new)
    finally:
        failpoints.configure("")
    seen = old if step in ("written", "prepared") else new
    assert atomic.read(tmp_path) == {name: text.encode() for name, text in seen.items()}
    assert (tmp_path / "a").read_text() == seen["a"]
    wanted = new if then == "the new version" else old
    write(tmp_path, **wanted)
    assert {name: (tmp_path / name).read_text() for name in wanted} == wanted
    assert sorted(os.listdir(tmp_path)) == sorted([*wanted, "..data", os.readlink(tmp_path / "..data")])


def test_a_full_disk_keeps_the_old_version(tmp_path, monkeypatch):
    write(tmp_path, a="old")

    def full(fd, mode):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, a="new")
    assert (tmp_path / "a").read_text() == "old"
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize(
    ("spec", "user", "group"),
    [
        ({"containers": [{"name": "a"}]}, None, None),
        ({"securityContext": {"runAsUser": 7, "fsGroup": 9}, "containers": [{"name": "a"}]}, 7, 9),
        ({"containers": [{"name": "a", "securityContext": {"runAsUser": 5}}]}, 5, None),
        ({"containers": [{"name": "a", "securityContext": {"runAsUser": 5}}, {"name": "b"}]}, None, None),
        (
            {"securityContext": {"runAsUser": 5}, "containers": [{"name": "a", "securityContext": {"runAsUser": 6}}]},
            6,
            None,
        ),
    ],
)
def test_who_owns_token_files(spec, user, group):
    pod = msgspec.convert({"metadata": {"name": "p"}, "spec": spec}, Pod)
    assert (fs_user(pod), fs_group(pod)) == (user, group)
