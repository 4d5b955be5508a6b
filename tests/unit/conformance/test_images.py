"""What the made images hold where a test depends on it."""

from __future__ import annotations

import json
from pathlib import Path

from conformance.images import registry_tree
from conformance.oci import BlobStore, Tree


def content(tree: Tree, name: str) -> bytes:
    data, _ = tree.files[name]
    return data.read_bytes() if isinstance(data, Path) else data


def place(kind: str, digest: str) -> str:
    number = digest.removeprefix("sha256:")
    return f"var/registry/pause/{kind}/sha256/{number[:2]}/{number}/data"


def test_an_image_for_agnhosts_registry_is_complete(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    layer = store.layer(Tree(files={"pause": (b"#!/bin/sh\n", 0o755)}))
    digest = store.image([layer], {}, "amd64")
    tree = registry_tree(store, "pause", "testing", digest)
    assert content(tree, "var/registry/pause/manifests/testing") == digest.encode()
    manifest = store.path(digest).read_bytes()
    config = json.loads(manifest)["config"]["digest"]
    held = {name: content(tree, name) for name in tree.files if name.endswith("/data")}
    assert held == {
        place("manifests", digest): manifest,
        place("blobs", config): store.path(config).read_bytes(),
        place("blobs", layer.digest): store.path(layer.digest).read_bytes(),
    }
