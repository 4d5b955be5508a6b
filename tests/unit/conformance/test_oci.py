"""Images as blobs: what they consist of, and that the same input gives the same image."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

from conformance.oci import CONFIG, LAYER, MANIFEST, BlobStore, Tree


def blob(store: BlobStore, digest: str) -> bytes:
    data = store.path(digest).read_bytes()
    assert digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    return data


def document(store: BlobStore, digest: str) -> Any:
    return json.loads(blob(store, digest))


def tree(program: Path) -> Tree:
    return Tree(
        files={"usr/bin/program": (program, 0o4755), "etc/motd": (b"hello\n", 0o644)},
        links={"bin/sh": "../usr/bin/program"},
        folders={"tmp": 0o1777},
    )


def test_a_layer_holds_the_tree(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    store = BlobStore(tmp_path / "store")
    layer = store.layer(tree(program))
    assert layer.size == len(blob(store, layer.digest))
    with tarfile.open(store.path(layer.digest)) as archive:
        members = {member.name: member for member in archive}
        motd = archive.extractfile("etc/motd")
        assert motd is not None
        assert motd.read() == b"hello\n"
    assert list(members) == ["bin", "etc", "tmp", "usr", "usr/bin", "etc/motd", "usr/bin/program", "bin/sh"]
    assert members["usr/bin/program"].mode == 0o4755
    assert members["tmp"].mode == 0o1777
    assert members["bin/sh"].linkname == "../usr/bin/program"
    assert {(m.uid, m.gid, m.mtime) for m in members.values()} == {(0, 0, 0)}


def test_the_same_tree_is_the_same_layer(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    one, two = BlobStore(tmp_path / "one"), BlobStore(tmp_path / "two")
    assert one.layer(tree(program)) == two.layer(tree(program))


def test_an_image_leads_to_its_parts(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    lower, upper = store.layer(Tree(files={"a": (b"1", 0o644)})), store.layer(Tree(files={"b": (b"2", 0o644)}))
    manifest = document(store, store.image([lower, upper], {"Cmd": ["sh"]}, "amd64"))
    assert manifest["mediaType"] == MANIFEST
    assert [(layer["digest"], layer["size"]) for layer in manifest["layers"]] == [
        (lower.digest, lower.size),
        (upper.digest, upper.size),
    ]
    assert {layer["mediaType"] for layer in manifest["layers"]} == {LAYER}
    assert manifest["config"]["mediaType"] == CONFIG
    config = document(store, manifest["config"]["digest"])
    assert config["config"] == {"Cmd": ["sh"]}
    assert config["architecture"] == "amd64"
    assert config["rootfs"]["diff_ids"] == [lower.digest, upper.digest]


def test_added_files_move_into_the_store_once(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "store")
    found = []
    for name in ("one", "two"):
        path = tmp_path / name
        path.write_bytes(b"content")
        found.append(store.add_file(path))
    assert found[0] == found[1] == store.add(b"content")
    assert len(list((tmp_path / "store" / "blobs").iterdir())) == 1


def test_names_come_last(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    assert store.names() == {}
    store.set_names({"b": "sha256:2", "a": "sha256:1"})
    assert list(store.names().items()) == [("a", "sha256:1"), ("b", "sha256:2")]
