"""What a container sees of its Pod's volumes: variables, mounts, and sub-paths that stay inside."""

import asyncio
import ctypes
import os
from pathlib import Path

import msgspec
import pytest

from nodewright.kube.api.volumes import VolumeMount
from nodewright.kube.errors import Forbidden
from nodewright_agent.pods.volumes.errors import MountError
from nodewright_agent.runtime import syscalls
from support.volume_objects import config_map, eventually, mode, mounted, set_up, text

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]


async def test_environment_sources(manager, make_pod, admin, namespace):
    await config_map(admin, namespace, "cm", {"a": "1"})
    pod = await make_pod([], containers=[{"name": "c", "image": "x", "envFrom": [
        {"configMapRef": {"name": "cm"}}, {"secretRef": {"name": "none", "optional": True}}]}])  # fmt: skip
    async with asyncio.timeout(20):
        while True:
            try:
                sources = await manager.env_sources(pod, pod.spec.containers[0])
                break
            except Forbidden:
                await asyncio.sleep(0.05)
    assert sources.config_maps["cm"].data == {"a": "1"}
    assert sources.secrets == {}


async def test_mounts_of_a_container(manager, make_pod, admin, namespace):
    await config_map(admin, namespace, "cm", {"a": "1"})
    pod = await make_pod(
        [{"name": "e", "emptyDir": {}}, {"name": "cm", "configMap": {"name": "cm"}}],
        mounts=[
            {"name": "cm", "mountPath": "/e/inner/file", "subPath": "a"},
            {"name": "e", "mountPath": "/e", "mountPropagation": "HostToContainer"},
            {"name": "e", "mountPath": "/sub", "subPathExpr": "x/$(POD)", "readOnly": True},
            {"name": "cm", "mountPath": "/cm"},
        ],
    )
    volumes = await set_up(manager, pod)
    found = manager.mounts_for(pod, pod.spec.containers[0], volumes, {"POD": "me"})
    by_path = {mount.destination: mount for mount in found}
    assert [mount.destination for mount in found].index("/e") < [m.destination for m in found].index("/e/inner/file")
    assert by_path["/e"].options == ["rbind", "rw", "rslave"]
    assert by_path["/cm"].options == ["rbind", "ro", "rprivate"]
    assert by_path["/sub"].options == ["rbind", "ro", "rprivate"]
    assert text(Path(by_path["/e/inner/file"].source)) == "1"
    assert mode(volumes["e"] / "x/me") == 0o777
    assert os.stat(by_path["/sub"].source).st_ino == (volumes["e"] / "x/me").stat().st_ino
    again = manager.mounts_for(pod, pod.spec.containers[0], volumes, {"POD": "me"})
    assert again == found
    assert len(mounted(by_path["/sub"].source)) == 1
    # a subPath mount keeps its content until the container starts anew
    await config_map(admin, namespace, "cm", {"a": "2"})
    await eventually(lambda: text(volumes["cm"] / "a") == "2")
    assert text(Path(by_path["/e/inner/file"].source)) == "1"
    manager.mounts_for(pod, pod.spec.containers[0], volumes, {"POD": "me"})
    assert text(Path(by_path["/e/inner/file"].source)) == "2"


async def test_a_directory_made_for_a_sub_path_is_as_its_volume(manager, make_pod):
    volumes = [{"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}]
    mounts = [{"name": one["name"], "mountPath": f"/{one['name']}", "subPath": "a/b"} for one in volumes]
    pod = await make_pod(volumes, mounts=mounts, securityContext={"fsGroup": 1234})
    made = await set_up(manager, pod)
    manager.mounts_for(pod, pod.spec.containers[0], made, {})
    for name, wanted in (("disk", 0o2777), ("memory", 0o3777)):
        for below in ("a", "a/b"):
            path = made[name] / below
            assert (mode(path), os.stat(path).st_uid, os.stat(path).st_gid) == (wanted, 0, 1234), path


async def test_sub_paths_cannot_leave_the_volume(manager, make_pod, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    pod = await make_pod([{"name": "e", "emptyDir": {}}])
    volumes = await set_up(manager, pod)
    root = volumes["e"]
    (root / "real").mkdir()
    (root / "file").touch()
    os.symlink("real", root / "inside")
    os.symlink(outside, root / "absolute")
    os.symlink("../" * 40 + str(outside).lstrip("/"), root / "relative")
    os.symlink("loop", root / "loop")
    os.symlink("absolute", root / "chain")
    os.symlink("/proc/self/root", root / "magic")
    os.mkfifo(root / "fifo")

    def mount(sub, expression=""):
        container = pod.spec.containers[0]
        document = {"name": "e", "mountPath": "/m"} | ({"subPathExpr": expression} if expression else {"subPath": sub})
        made = type(container)(name="c", volume_mounts=[msgspec.convert(document, VolumeMount)])
        (found,) = manager.mounts_for(pod, made, volumes, {"UP": "..", "EMPTY": "", "TICK": "`x`"})
        return os.stat(found.source)

    assert mount("inside").st_ino == (root / "real").stat().st_ino
    assert mount("file").st_ino == (root / "file").stat().st_ino
    assert mount("fifo").st_ino == (root / "fifo").stat().st_ino
    assert mount("inside/new/deep").st_ino == (root / "real/new/deep").stat().st_ino
    assert mount("./real//").st_ino == (root / "real").stat().st_ino
    assert mount("", "$(TICK)").st_ino == (root / "`x`").stat().st_ino
    for sub in ("absolute", "absolute/secret", "relative", "relative/new", "chain/secret", "loop", "magic", "magic/etc",
                "file/below", "absolute/made/by/us"):  # fmt: skip
        with pytest.raises(MountError):
            mount(sub)
    for sub in ("../x", "/etc", "a/../../x"):
        with pytest.raises(MountError):
            mount(sub)
    for expression in ("$(UP)", "a/$(UP)/x", "$(NONE)", "$(EMPTY)", "/$(TICK)"):
        with pytest.raises(MountError):
            mount("", expression)
    assert sorted(os.listdir(outside)) == ["secret"]


async def test_sub_path_against_a_racing_swap(manager, make_pod, tmp_path):
    """CVE-2021-25741: a container exchanges a directory for a symlink while the agent binds it."""
    outside = tmp_path / "outside"
    (outside / "b").mkdir(parents=True)
    pod = await make_pod([{"name": "e", "emptyDir": {}}], mounts=[{"name": "e", "mountPath": "/m", "subPath": "a/b"}])
    volumes = await set_up(manager, pod)
    (volumes["e"] / "a/b").mkdir(parents=True)
    os.symlink(outside, volumes["e"] / "evil")
    names = [os.fsencode(volumes["e"] / name) for name in ("a", "evil")]
    exchange = ctypes.CDLL(None).renameat2
    stop = asyncio.Event()

    def swap():
        swaps = 0
        while not stop.is_set():
            assert exchange(-100, names[0], -100, names[1], 2) == 0  # AT_FDCWD, RENAME_EXCHANGE
            swaps += 1
        return swaps

    racer = asyncio.get_running_loop().run_in_executor(None, swap)
    bound = refused = 0
    for _ in range(400):
        try:
            (found,) = manager.mounts_for(pod, pod.spec.containers[0], volumes, {})
        except MountError:
            refused += 1
            continue
        bound += 1
        assert os.stat(found.source).st_ino != (outside / "b").stat().st_ino
        syscalls.umount(found.source)
    stop.set()
    assert await racer > 100
    assert bound
    assert refused
    assert os.listdir(outside) == ["b"]
