"""The image store with real archives, locks, crashes and mounts."""

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nodewright_agent.runtime.images import demo, records
from nodewright_agent.runtime.images.errors import (
    ArchiveError,
    ErrImageNeverPull,
    ErrImagePull,
    ImageInUse,
    ImageNotFound,
    StoreFull,
)
from nodewright_agent.runtime.images.fsutil import locked
from nodewright_agent.runtime.images.records import LayerRecord
from nodewright_agent.runtime.images.store import ImageStore
from support.image_makers import (
    BASE,
    TOP,
    digest,
    docker_files,
    entry,
    folder,
    image,
    oci_files,
    symlink,
    tar,
    write_archive,
)

pytestmark = pytest.mark.needs_root


def layer_names(store):
    return sorted(path.name for path in store._layout.layers.iterdir())


def run(*command):
    return subprocess.run(command, check=True, capture_output=True).stdout


def leftovers(store):
    return list(store._layout.tmp.iterdir())


def short(layer):
    return digest(layer)[7:31]


@pytest.mark.parametrize("kind", ["oci", "docker", "oci gz", "docker gz", "oci directory"])
async def test_load_all_kinds_of_archives(store, archive_path, kind):
    made, other = image(BASE, TOP, Env=["A=1"]), image(BASE)
    if kind.startswith("oci"):
        files = oci_files((made, "localhost/a:1"), (other, "localhost/b:2"))
    else:
        files = docker_files((made, ["localhost/a:1", "localhost/a:2"]), (other, ["localhost/b:2"]))
    if kind.endswith("directory"):
        for name, data in files.items():
            (archive_path / name).parent.mkdir(parents=True, exist_ok=True)
            (archive_path / name).write_bytes(data)
    else:
        write_archive(archive_path, files)
    if kind.endswith("gz"):
        archive_path.write_bytes(gzip.compress(archive_path.read_bytes()))
    steps = []
    loaded = await store.load(archive_path, progress=steps.append)
    assert [found.id for found in loaded] == [made.image_id, other.image_id]
    found = store.resolve("localhost/a:1")
    assert found is not None
    assert found.id == made.image_id
    assert found.config.env == ["A=1"]
    assert [layer.name for layer in found.layers] == [short(TOP), short(BASE)]  # top first
    assert (found.layers[1] / "bin/true").exists()
    assert store.resolve("localhost/b:2").id == store.resolve(other.image_id).id == other.image_id
    assert layer_names(store) == sorted((short(BASE), short(TOP)))  # shared layers are stored once
    assert {step.state for step in steps} >= {"pulling", "done"}
    assert not leftovers(store)
    again = await store.load(archive_path)
    assert [i.id for i in again] == [i.id for i in loaded]


async def test_layers_make_the_image_when_mounted(store, archive_path, tmp_path):
    await store.load(write_archive(archive_path, oci_files((image(BASE, TOP), "a:1"))))
    found = store.resolve("a:1")
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    lowers = ":".join(map(str, found.layers))
    options = f"lowerdir={lowers},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    run("mount", "-t", "overlay", "-o", options, "overlay", str(tmp_path / "merged"))
    try:
        assert sorted(os.listdir(tmp_path / "merged/etc")) == ["new"]
        assert os.path.exists(tmp_path / "merged/bin/true")
        with pytest.raises(ImageInUse, match="in use by a container"):
            store.remove("a:1")
        assert store.resolve("a:1") is not None
    finally:
        run("umount", str(tmp_path / "merged"))
    store.remove("a:1")
    assert store.resolve("a:1") is None
    assert layer_names(store) == []


def broken(change):
    files = oci_files((image(BASE), "localhost/good:1"), (image(BASE, TOP), "localhost/bad:1"))
    return change(files)


def truncated_layer(files):
    name = next(name for name, data in files.items() if gzip.compress(TOP, 1, mtime=0) == data)
    return files | {name: files[name][:-20] + bytes(20)}


async def test_of_a_corrupt_archive_nothing_is_loaded(store, archive_path):
    write_archive(archive_path, broken(truncated_layer))
    with pytest.raises(ArchiveError, match=r"image\.tar: archive is corrupt: "):
        await store.load(archive_path)
    assert store.list() == []
    assert not leftovers(store)
    store.gc()
    assert layer_names(store) == []


@pytest.mark.parametrize(
    "content", [b"", b"x", b"not an archive" * 100, bytes(5000), gzip.compress(b"zip"), b"PK\x03\x04" + bytes(600)]
)
async def test_files_that_are_no_archives(store, archive_path, content):
    archive_path.write_bytes(content)
    with pytest.raises(ErrImagePull, match=r"image\.tar: "):
        await store.load(archive_path)
    assert store.list() == []
    assert not leftovers(store)


async def test_truncated_archives(store, archive_path):
    whole = write_archive(archive_path, oci_files((image(BASE, TOP), "a:1"))).read_bytes()
    for at in range(600, len(whole) - 10240, 1500):
        archive_path.write_bytes(whole[:at])
        with pytest.raises(ErrImagePull):
            await store.load(archive_path)
    assert store.list() == []
    with pytest.raises(ErrImagePull, match="No such file"):
        await store.load(archive_path.with_name("absent"))


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
async def test_images_whose_mount_points_lead_elsewhere_are_refused(store, archive_path, name):
    """CVE-2026-41579, CVE-2025-31133."""
    made = image(tar(folder(name)), tar(symlink(name, "/etc")))
    with pytest.raises(ErrImagePull, match=f"/{name} is not a directory"):
        await store.load(write_archive(archive_path, oci_files((made, "a:1"))))
    assert store.list() == []
    await store.load(
        write_archive(archive_path, oci_files((image(tar(symlink(name, "/etc")), tar(folder(name))), "b:1")))
    )


async def test_a_layer_that_hides_everything_below(store, archive_path):
    made = image(BASE, tar(entry(".wh..wh..opq"), entry("only")))
    (found,) = await store.load(write_archive(archive_path, oci_files((made, "a:1"))))
    assert len(found.layers) == 1


async def test_many_layers_and_repeated_layers(store, archive_path):
    layers = [tar(entry(f"f{i}")) for i in range(60)]
    (found,) = await store.load(write_archive(archive_path, oci_files((image(*layers, layers[0], layers[0]), "a:1"))))
    assert len(found.layers) == 60
    assert found.layers[0].name == short(layers[0])
    (empty,) = await store.load(write_archive(archive_path, oci_files((image(), "none:1"))))
    assert empty.layers == []


async def test_names_move_and_removal_keeps_what_others_need(store, archive_path):
    first, second = image(BASE), image(BASE, TOP)
    await store.load(write_archive(archive_path, docker_files((first, ["a:1", "b:1"]))))
    await store.load(write_archive(archive_path, docker_files((second, ["a:1"]))))
    assert store.resolve("a:1").id == second.image_id
    assert store.resolve("b:1").id == first.image_id
    store.remove("a:1")
    assert store.resolve("a:1") is None
    assert layer_names(store) == [short(BASE)]
    await store.load(write_archive(archive_path, docker_files((first, ["c:1"]))))
    store.remove("b:1")
    assert store.resolve("c:1").id == first.image_id
    store.remove(first.image_id)
    assert store.list() == []
    assert layer_names(store) == []
    with pytest.raises(ImageNotFound, match="not in the store"):
        store.remove("c:1")


async def test_pull_policy_never_and_present(store, archive_path):
    with pytest.raises(ErrImageNeverPull, match='Container image "a:1" is not present with pull policy of Never'):
        await store.ensure("a:1", "Never")
    await store.load(write_archive(archive_path, oci_files((image(BASE), "a:1"))))
    for policy in ("Never", "IfNotPresent"):
        assert (await store.ensure("a:1", policy)).names == ["docker.io/library/a:1"]


async def test_corrupt_records_make_an_image_absent_not_wrong(store, archive_path, caplog):
    made = image(BASE)
    write_archive(archive_path, oci_files((made, "a:1")))
    for path in (store._layout.image_record(made.image_id), store._layout.layer_record(digest(BASE)),
                 store._layout.name_record("docker.io/library/a:1")):  # fmt: skip
        await store.load(archive_path)
        assert store.resolve("a:1") is not None
        path.write_bytes(path.read_bytes()[:-3] + b"????")  # another size: two writes may share a clock tick
        assert store.resolve("a:1") is None
        assert "corrupt" in caplog.text
        caplog.clear()
    (again,) = await store.load(archive_path)
    assert (again.layers[0] / "bin/true").exists()


async def test_layers_that_a_power_failure_may_have_cut_are_not_trusted(store, archive_path):
    await store.load(write_archive(archive_path, oci_files((image(BASE), "a:1"))))
    await store.settled()
    path = store._layout.layer_record(digest(BASE))
    record = records.read(store._layout, path, LayerRecord)
    assert record.synced
    records.write(path, LayerRecord(record.diff_id, record.size, record.entries, False, "another boot", synced=False))
    assert store.resolve("a:1") is None
    (again,) = await store.load(archive_path)
    assert (again.layers[0] / "etc/os").read_bytes() == b"one"
    records.write(path, LayerRecord(record.diff_id, record.size, record.entries, False, "another boot", synced=True))
    assert store.resolve("a:1") is not None


async def test_removal_waits_for_nobody_and_leaves_layers_in_use_to_the_end_of_the_load(store, archive_path):
    await store.load(write_archive(archive_path, oci_files((image(BASE), "a:1"))))
    with locked(store._layout.use_lock, shared=True):  # as a pull of another process holds it
        store.remove("a:1")
        assert layer_names(store) == [short(BASE)]
    await store.load(write_archive(archive_path, oci_files((image(TOP), "b:1"))))
    await store.settled()
    assert layer_names(store) == [short(TOP)]


LOADER = """
import asyncio, sys
from pathlib import Path
from nodewright_agent.runtime.images.store import ImageStore
async def main():
    store = ImageStore(Path(sys.argv[1]))
    print("open", flush=True)
    loaded = await store.load(Path(sys.argv[2]), progress=lambda step: print(step.state, flush=True))
    print([image.id for image in loaded])
    await store.close()
asyncio.run(main())
"""


def loader(store, archive):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen([sys.executable, "-c", LOADER, str(store), str(archive)], stdout=subprocess.PIPE,
                            text=True, env=environment)  # fmt: skip


def test_two_processes_load_the_same_archive_at_once(tmp_path, archive_path):
    big = tar(*(entry(f"f{i}", data=os.urandom(20_000)) for i in range(200)))
    made = image(big, TOP)
    write_archive(archive_path, oci_files((made, "a:1")))
    processes = [loader(tmp_path / "store", archive_path) for _ in range(3)]
    for process in processes:
        output, _ = process.communicate(timeout=50)
        assert process.returncode == 0
        assert made.image_id in output
    store = ImageStore(tmp_path / "store")
    assert layer_names(store) == sorted((short(big), short(TOP)))
    assert len(os.listdir(store._layout.layer(digest(big)))) == 200
    assert not leftovers(store)


def test_kill_in_the_middle_leaves_nothing_behind_at_the_next_open(tmp_path, archive_path):
    big = tar(*(entry(f"f{i}", data=os.urandom(100_000)) for i in range(300)))
    made = image(big)
    write_archive(archive_path, oci_files((made, "a:1")))
    process = loader(tmp_path / "store", archive_path)
    while process.stdout.readline().strip() != "pulling":
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert os.listdir(tmp_path / "store" / "tmp")
    store = ImageStore(tmp_path / "store")
    assert not leftovers(store)
    assert store.list() == []
    assert layer_names(store) == []
    (loaded,) = asyncio.run(store.load(archive_path))
    assert len(os.listdir(loaded.layers[0])) == 300


async def test_full_disk(tmp_path, archive_path):
    """Nothing half made, what was there before still works, and room given back is enough."""
    small = tmp_path / "small"
    small.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small))
    try:
        store = ImageStore(small / "store")
        await store.load(write_archive(archive_path, oci_files((image(BASE), "kept:1"))))
        big = image(tar(entry("big", data=os.urandom(6 << 20))))
        write_archive(archive_path, oci_files((big, "big:1")))
        with pytest.raises(StoreFull, match="no space left on device"):
            await store.load(archive_path)
        assert not leftovers(store)
        assert [found.names for found in store.list()] == [["docker.io/library/kept:1"]]
        run("mount", "-o", "remount,size=20m", str(small))
        assert await store.load(archive_path)
        await store.close()
    finally:
        run("umount", "-l", str(small))


async def test_cancelling_one_of_two_waiters_leaves_the_other_its_image(store, archive_path):
    big = tar(*(entry(f"f{i}", data=os.urandom(50_000)) for i in range(200)))
    write_archive(archive_path, oci_files((image(big), "a:1")))
    started = asyncio.Event()
    first, second = (asyncio.create_task(store.load(archive_path, progress=lambda _: started.set())) for _ in range(2))
    await started.wait()
    first.cancel()
    assert [found.names for found in await second] == [["docker.io/library/a:1"]]
    with pytest.raises(asyncio.CancelledError):
        await first
    assert not leftovers(store)


async def test_cancelling_all_stops_the_work_and_cleans_up(store, archive_path):
    big = tar(*(entry(f"f{i}", data=os.urandom(100_000)) for i in range(300)))
    write_archive(archive_path, oci_files((image(big), "a:1")))
    started = asyncio.Event()
    task = asyncio.create_task(store.load(archive_path, progress=lambda step: started.set()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not leftovers(store)
    assert layer_names(store) == []


@pytest.mark.skipif(not Path("/bin/busybox").exists(), reason="busybox-static is not installed")
async def test_the_demo_image_can_be_loaded(store, archive_path):
    demo.write(archive_path)
    (found,) = await store.load(archive_path)
    assert found.names == [demo.DEMO_IMAGE]
    assert found.config.cmd == ["/bin/serve"]
    root = found.layers[0]
    assert run("chroot", str(root), "/bin/sh", "-c", "echo works") == b"works\n"


def test_archive_without_a_matching_platform(tmp_path, archive_path):
    made = image(BASE)
    files = oci_files((made, "a:1"))
    index = json.loads(files["index.json"])
    index["manifests"][0]["platform"] = {"os": "linux", "architecture": "s390x"}
    write_archive(archive_path, files | {"index.json": json.dumps(index).encode()})
    with pytest.raises(ArchiveError, match="no match for platform linux/amd64"):
        asyncio.run(ImageStore(tmp_path / "store").load(archive_path))
