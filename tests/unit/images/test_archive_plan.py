import json

import pytest

from nodewright_agent.runtime.images import demo
from nodewright_agent.runtime.images.archive import TarReader, plan
from nodewright_agent.runtime.images.errors import ArchiveError, ErrImagePull, ImageError
from nodewright_agent.runtime.images.manifest import Platform
from support.image_makers import BASE, INDEX, MANIFEST, TOP, digest, docker_files, entry, image, oci_files, symlink, tar

AMD64 = Platform("linux", "amd64")


class Files:
    """An archive's files in a dict."""

    def __init__(self, files):
        self.files = files

    def size(self, name):
        return len(self.files[name]) if name in self.files else None

    def read(self, name, offset, count):
        return self.files.get(name, b"")[offset : offset + count]


def names(files):
    return [sorted(planned.names) for planned in plan(Files(files), AMD64)]


def test_oci_names_come_from_annotations():
    files = oci_files((image(BASE), "localhost/a:1"), (image(BASE, TOP), "busybox:2"), (image(TOP), "bare-tag"))
    found = names(files)
    assert "localhost/a:1" in found[0]
    assert "docker.io/library/busybox:2" in found[1]
    assert any("@sha256:" in name for name in found[1])
    assert found[2] == []
    index = json.loads(files["index.json"])
    index["manifests"][2]["annotations"] |= {"io.containerd.image.name": "docker.io/x/y:3"}
    files["index.json"] = json.dumps(index).encode()
    assert "docker.io/x/y:3" in names(files)[2]


def test_docker_archives():
    first, second = image(BASE, TOP), image(BASE)
    found = plan(Files(docker_files((first, ["a:1", "b:2"]), (second, []))), AMD64)
    assert [sorted(p.names) for p in found] == [["docker.io/library/a:1", "docker.io/library/b:2"], []]
    assert found[0].image_id == first.image_id
    assert [layer.diff_id for layer in found[0].layers] == [digest(BASE), digest(TOP)]


def test_an_index_within_the_index_is_followed_to_the_platform():
    good, other = image(BASE), image(TOP)
    other.config["architecture"] = "arm64"
    files = oci_files((good, ""), (other, ""))
    (_, good_digest), (_, other_digest) = good.freeze(), other.freeze()
    inner = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": d, "size": 1, "platform": {"os": "linux", "architecture": a}}
        for d, a in ((other_digest, "arm64"), (good_digest, "amd64"))]}).encode()  # fmt: skip
    files[f"blobs/{digest(inner).replace(':', '/')}"] = inner
    top = {"schemaVersion": 2, "manifests": [{"mediaType": INDEX, "digest": digest(inner), "size": len(inner)}]}
    files["index.json"] = json.dumps(top).encode()
    assert [p.image_id for p in plan(Files(files), AMD64)] == [good.image_id]


def spoiled(change):
    files = oci_files((image(BASE, TOP), "a:1"))
    return change(files) or files


def blob_of(files, marker):
    return next(name for name, data in files.items() if name.startswith("blobs/") and marker in data)


def without(files, name):
    return {key: data for key, data in files.items() if key != name}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "neither a docker archive"),
        ({"index.json": b"{}"}, "neither a docker archive"),
        (spoiled(lambda f: f | {"index.json": b"{"}), "not valid JSON"),
        (spoiled(lambda f: f | {"index.json": b'{"schemaVersion": 2, "manifests": []}'}), "no images"),
        (spoiled(lambda f: without(f, blob_of(f, b'"schemaVersion"'))), "archive lacks blobs/"),
        (spoiled(lambda f: without(f, blob_of(f, b'"rootfs"'))), "archive lacks blobs/"),
        (spoiled(lambda f: without(f, blob_of(f, b"\x1f\x8b"))), "archive lacks blobs/"),
        (spoiled(lambda f: f | {blob_of(f, b'"rootfs"'): b"{}"}), "expected"),
        (spoiled(lambda f: f | {blob_of(f, b"\x1f\x8b"): b"short"}), "the manifest says"),
        ({"manifest.json": b"{}"}, "must be a list"),
        ({"manifest.json": b"[]"}, "must be a list"),
        ({"manifest.json": b"[1]"}, "must be an object"),
        ({"manifest.json": b'[{"Config": "c.json"}]'}, "archive lacks c.json"),
        (docker_files((image(BASE), ["a//b"])), "couldn't parse image name"),
        (without(docker_files((image(BASE), [])), f"{digest(BASE)[7:]}/layer.tar"), "archive lacks"),
    ],
)
def test_broken_archives(files, said):
    with pytest.raises(ImageError) as caught:
        plan(Files(files), AMD64)
    assert said in str(caught.value)


def test_config_file_that_does_not_have_the_digest_of_its_name():
    files = docker_files((image(BASE), []))
    name = next(name for name in files if name.endswith(".json") and name != "manifest.json")
    files[name] = files[name].replace(b"amd64", b"arm64")
    with pytest.raises(ErrImagePull, match="expected"):
        plan(Files(files), AMD64)


def test_links_within_a_tar_lead_to_files_of_it_and_nowhere_else(tmp_path):
    path = tmp_path / "a.tar"
    links = {"y/layer.tar": "../x/layer.tar", "loop": "loop", "out": "/etc/passwd", "up": "../../etc/passwd"}
    path.write_bytes(tar(entry("x/layer.tar", data=b"data"), *(symlink(name, to) for name, to in links.items())))
    with open(path, "rb") as file:
        reader = TarReader(file)
        assert reader.size("y/layer.tar") == 4
        assert reader.read("./y/layer.tar", 1, 2) == b"at"
        assert [reader.size(name) for name in ("loop", "out", "up", "/etc/passwd")] == [None] * 4


def test_the_demo_image_is_the_same_every_time(tmp_path):
    program = b"\x7fELF static"
    assert demo.build(program) == demo.build(program)
    (tmp_path / "busybox").write_bytes(program)
    demo.write(tmp_path / "a.tar", tmp_path / "busybox")
    with open(tmp_path / "a.tar", "rb") as file:
        (planned,) = plan(TarReader(file), Platform.of_this_machine())
    assert demo.DEMO_IMAGE in planned.names
    (tmp_path / "busybox").write_bytes(b"\x7fELF /lib64/ld-linux-x86-64.so.2")
    with pytest.raises(ErrImagePull, match="not a static program"):
        demo.write(tmp_path / "b.tar", tmp_path / "busybox")


def test_a_name_may_not_lie_about_the_digest():
    made = image(BASE)
    lie = f"docker.io/library/x@{digest(b'another')}"
    files = oci_files((made, lie))
    with pytest.raises(ArchiveError, match=r"the image that is named docker\.io/library/x@sha256:.* has the digest"):
        plan(Files(files), AMD64)
    with pytest.raises(ArchiveError, match="no digests to name an image by"):
        plan(Files(docker_files((made, [lie]))), AMD64)
