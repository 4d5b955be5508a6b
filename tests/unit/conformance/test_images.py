"""What the made images hold where a test depends on it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from conformance.errors import Missing
from conformance.images import registry_tree
from conformance.oci import BlobStore, Tree
from conformance.parts import busybox_tree, static


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


def test_busyboxes_shell_keeps_all_variables_and_words_its_errors_itself(tmp_path: Path) -> None:
    try:
        tree = busybox_tree(static("busybox", "busybox-static"), static("bash-static", "bash-static"))
    except Missing as error:
        pytest.skip(f"{error}: tools/setup.sh conformance installs it")
    script = tmp_path / "sh"
    script.write_bytes(content(tree, "bin/sh").replace(b"/bin/busybox", str(tree.files["bin/busybox"][0]).encode()))
    script.chmod(0o755)

    def said(command: str, **variables: str) -> str:
        environment = {"PATH": os.environ["PATH"], **variables}
        done = subprocess.run([script, "-c", command], capture_output=True, text=True, env=environment, check=False)
        return done.stdout + done.stderr

    assert "data-1=x" in said("env", **{"data-1": "x"}).splitlines()
    assert said("echo x > /no/such/file") == f"{script}: can't create /no/such/file: nonexistent directory\n"
