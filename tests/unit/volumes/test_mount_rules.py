from pathlib import Path

import msgspec
import pytest

from nodewright.kube.api.volumes import Volume, VolumeMount
from nodewright.kube.objects import Pod
from nodewright_agent.pods.volumes.emptydir import memory_limit
from nodewright_agent.pods.volumes.errors import MountError, VolumeError
from nodewright_agent.pods.volumes.mounts import options, sub_path
from nodewright_agent.pods.volumes.paths import PodPaths
from nodewright_agent.pods.volumes.plugin import SetUp
from nodewright_agent.pods.volumes.registry import PLUGINS, plugin_for


def mount(**more):
    return msgspec.convert({"name": "v", "mountPath": "/m"} | more, VolumeMount)


def volume(source):
    return msgspec.convert({"name": "v", source: {"path": "/x", "claimName": "c"}}, Volume)


@pytest.mark.parametrize(
    ("more", "source", "expected"),
    [
        ({}, "emptyDir", ["rbind", "rw", "rprivate"]),
        ({"readOnly": True}, "emptyDir", ["rbind", "ro", "rprivate"]),
        ({}, "configMap", ["rbind", "ro", "rprivate"]),
        ({}, "secret", ["rbind", "ro", "rprivate"]),
        ({}, "downwardAPI", ["rbind", "ro", "rprivate"]),
        ({}, "projected", ["rbind", "ro", "rprivate"]),
        ({"mountPropagation": "Bidirectional"}, "hostPath", ["rbind", "rw", "rshared"]),
        ({"mountPropagation": "None"}, "hostPath", ["rbind", "rw", "rprivate"]),
        ({"readOnly": True, "recursiveReadOnly": "Enabled"}, "hostPath", ["rbind", "ro", "rprivate", "rro"]),
        ({"readOnly": True, "recursiveReadOnly": "IfPossible"}, "hostPath", ["rbind", "ro", "rprivate", "rro"]),
        ({"readOnly": True, "recursiveReadOnly": "Disabled"}, "hostPath", ["rbind", "ro", "rprivate"]),
    ],
)
def test_options(more, source, expected):
    assert options(mount(**more), volume(source), recursive_read_only=True) == expected


def test_a_volume_adds_to_what_its_mounts_say():
    made = SetUp(Path("/x"), read_only=True, options=("noexec",))
    assert options(mount(), volume("persistentVolumeClaim"), made) == ["rbind", "ro", "rprivate", "noexec"]
    assert options(mount(), volume("hostPath"), SetUp(Path("/x"), options=("ro",))) == ["rbind", "ro", "rprivate"]


def test_recursive_read_only_where_the_runtime_cannot():
    assert options(mount(readOnly=True, recursiveReadOnly="IfPossible"), volume("hostPath"))[-1] == "rprivate"
    with pytest.raises(MountError) as caught:
        options(mount(readOnly=True, recursiveReadOnly="Enabled"), volume("hostPath"))
    said = 'volume "v" requested recursive read-only mode, but it is not supported by the runtime'
    assert str(caught.value) == f"failed to resolve recursive read-only mode: {said}"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"mountPropagation": "Sideways"}, "invalid MountPropagation mode"),
        ({"recursiveReadOnly": "Enabled"}, "it is not read-only"),
        ({"recursiveReadOnly": "Enabled", "readOnly": True, "mountPropagation": "HostToContainer"}, "not compatible"),
        ({"recursiveReadOnly": "Perhaps", "readOnly": True}, "unknown recursive read-only mode"),
    ],
)
def test_options_without_meaning(more, said):
    with pytest.raises(MountError, match=said):
        options(mount(**more), volume("emptyDir"))


def test_sub_path_text():
    assert sub_path(mount(subPath="a/b"), {}) == "a/b"
    assert sub_path(mount(subPath="."), {}) == ""
    assert sub_path(mount(subPathExpr="$(A)/$$(B)"), {"A": "x"}) == "x/$(B)"
    with pytest.raises(MountError, match='missing value for "B"'):
        sub_path(mount(subPathExpr="$(B)"), {})
    with pytest.raises(MountError, match="must not be an absolute path"):
        sub_path(mount(subPathExpr="$(A)"), {"A": "/etc"})


@pytest.mark.parametrize(
    ("limits", "size", "allocatable", "bytes_"),
    [
        ([None], None, {}, None),
        ([None], "1Mi", {}, 1 << 20),
        ([None], "0", {"memory": "1Gi"}, 1 << 30),
        (["64Mi", "64Mi"], "1Gi", {"memory": "1Gi"}, 128 << 20),
        (["64Mi", None], "1Gi", {"memory": "2Gi"}, 1 << 30),
    ],
)
def test_size_of_memory_volumes(limits, size, allocatable, bytes_):
    containers = [{"name": "c", "resources": {"limits": {"memory": limit} if limit else {}}} for limit in limits]
    pod = msgspec.convert({"metadata": {"name": "p"}, "spec": {"containers": containers}}, Pod)
    assert memory_limit(pod, size, allocatable) == bytes_


def test_every_kind_of_volume_has_a_plugin_or_a_clear_error():
    for name in PLUGINS:
        plugin_for(volume(name))
    for source, said in (
        ({"nfs": {}}, "no NFS client"),
        ({"iscsi": {}}, "no iSCSI initiator"),
        ({"csi": {"driver": "d.example"}}, "driver name d.example not found in the list of registered CSI drivers"),
        ({"flocker": {}}, "flocker volumes are not supported"),
        ({"fromTheFuture": {}}, "this kind of volume is not known"),
    ):
        with pytest.raises(VolumeError, match=said):
            plugin_for(msgspec.convert({"name": "v"} | source, Volume))


@pytest.mark.parametrize("uid", ["", "..", "a/b", "/", "x" * 200, "a\n", "-x"])
def test_uids_cannot_lead_elsewhere(tmp_path, uid):
    with pytest.raises(VolumeError):
        PodPaths(tmp_path, uid)


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "x" * 64, "a\n"])
def test_volume_names_cannot_lead_elsewhere(tmp_path, name):
    with pytest.raises(VolumeError):
        PodPaths(tmp_path, "uid").volume("empty-dir", name)
    with pytest.raises(VolumeError):
        PodPaths(tmp_path, "uid").subpath(name, "c", 0)
    with pytest.raises(VolumeError):
        PodPaths(tmp_path, "uid").subpath("v", name, 0)
