"""The images that the conformance tests (e2e.test) use, made on this machine instead of being pulled."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from conformance import rootfs
from conformance.oci import BlobStore, Tree
from conformance.parts import (
    NGINX_ARGUMENTS,
    PATH,
    Parts,
    busybox_tree,
    debian_layer,
    ensure_store,
    image,
    nginx_tree,
)
from nodewright.controlplane import versions

DOMAIN = "registry.k8s.io"
BINARIES = ("agnhost", "nonewprivs", "sample-apiserver", "coredns", "etcd")
COREDNS_IMAGE = f"{DOMAIN}/coredns/coredns:{versions.COREDNS}"
_E2E = f"{DOMAIN}/e2e-test-images"
# PID 1 ignores signals without a handler: without the trap, deletion would take the whole grace period.
_PAUSE = """#!/bin/sh
trap 'kill $! 2>/dev/null; exit 0' TERM INT
while :; do sleep 86400 & wait $!; done
"""


def ensure(cache: Path, binaries: Mapping[str, Path], say: Callable[[str], None]) -> BlobStore:
    """The blob store with every image, made when any part of them has changed."""
    return ensure_store(cache, "images", {name: binaries[name] for name in BINARIES}, make, say)


def make(parts: Parts) -> dict[str, str]:
    """Make all images; name to manifest digest."""
    store = parts.store
    debian, busybox = debian_layer(parts), store.layer(busybox_tree(parts.busybox, parts.shell))
    pause = Tree(files={"pause": (_PAUSE.encode(), 0o755)})
    made = {f"{DOMAIN}/pause:3.10.2": image(store, [busybox, store.layer(pause)], {"Entrypoint": ["/pause"]})}
    served = registry_tree(store, "pause", "testing", made[f"{DOMAIN}/pause:3.10.2"])
    tools = store.layer(_agnhost_tree(parts))
    agnhost = {"Entrypoint": ["/agnhost"], "Cmd": ["pause"], "Env": [PATH]}
    shell: dict[str, Any] = {"Cmd": ["sh"], "Env": [PATH]}
    bash: dict[str, Any] = {"Cmd": ["bash"], "Env": [PATH]}
    made |= {
        f"{_E2E}/agnhost:{versions.AGNHOST}": image(store, [debian, tools, store.layer(served)], agnhost),
        f"{_E2E}/agnhost:2.55": image(store, [debian, tools], agnhost | {"Labels": {"version": "2.55"}}),
        f"{_E2E}/glibc-dns-testing:2.0.0": image(store, [debian], bash),
        f"{_E2E}/ipc-utils:1.4": image(store, [debian], bash),
        f"{_E2E}/perl:5.26": image(store, [debian], bash),
        f"{_E2E}/nonroot:1.5": image(store, [debian], bash | {"User": "1234"}),
        f"{_E2E}/busybox:1.37.0-1": image(store, [busybox], shell),
        f"{_E2E}/busybox:1.36.1-1": image(store, [busybox], shell | {"Labels": {"version": "1.36.1-1"}}),
    }
    for name in ("kitten:1.8", "nautilus:1.8"):
        layers = [debian, tools, store.layer(_pet_tree(name.partition(":")[0]))]
        made[f"{_E2E}/{name}"] = image(store, layers, agnhost | {"Cmd": ["test-webserver"]})
    nginx = store.layer(nginx_tree())
    for name in ("nginx:1.15-4", "nginx:1.27-0"):
        config = {"Cmd": NGINX_ARGUMENTS, "Env": [PATH], "Labels": {"version": name}}
        made[f"{_E2E}/{name}"] = image(store, [debian, nginx], config)
    setuid = Tree(files={"usr/local/bin/nnp": (parts.binaries["nonewprivs"], 0o6755)})
    made[f"{_E2E}/nonewprivs:1.4"] = image(store, [busybox, store.layer(setuid)], {"Cmd": ["nnp"], "Env": [PATH]})
    return made | _servers(parts)


def _servers(parts: Parts) -> dict[str, str]:
    """Images that are one program."""
    store, made = parts.store, {}
    for name, binary, path in (
        (f"{_E2E}/sample-apiserver:1.29.2", "sample-apiserver", "kube-sample-apiserver"),
        (f"{DOMAIN}/etcd:{versions.ETCD.removeprefix('v')}-0", "etcd", "usr/local/bin/etcd"),
        (COREDNS_IMAGE, "coredns", "coredns"),
    ):
        tree = Tree(files={path: (parts.binaries[binary], 0o755)}, folders={"tmp": 0o1777})
        made[name] = image(store, [store.layer(tree)], {"Entrypoint": [f"/{path}"], "Env": [PATH]})
    return made


def _agnhost_tree(parts: Parts) -> Tree:
    """agnhost, busybox for the tools that Debian's tree lacks, a user whom only the image knows, and a certificate."""
    accounts = rootfs.account_files(parts.debian)
    certificate, key = _certificate()
    users = accounts["etc/passwd"] + "user-defined-in-image:x:1000:1000::/:/bin/sh\n"
    groups = (
        accounts["etc/group"] + "user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"
    )
    return Tree(
        files={
            "agnhost": (parts.binaries["agnhost"], 0o755),
            "usr/local/bin/busybox": (parts.busybox, 0o755),
            "localhost.crt": (certificate, 0o644),
            "localhost.key": (key, 0o644),
            "etc/passwd": (users.encode(), 0o644),
            "etc/group": (groups.encode(), 0o644),
        },
        links={"agnhost-2": "agnhost", "usr/local/bin/wget": "busybox", "usr/local/bin/vi": "busybox"},
        folders={"uploads": 0o755},
    )


def registry_tree(store: BlobStore, name: str, tag: str, digest: str) -> Tree:
    """The image `digest` of the store as `name:tag`, laid out as agnhost's fake-registry-server wants to find it."""
    root = f"var/registry/{name}"
    manifest = json.loads(store.path(digest).read_bytes())
    blobs = [blob["digest"] for blob in (manifest["config"], *manifest["layers"])]
    files: dict[str, tuple[bytes | Path, int]] = {f"{root}/manifests/{tag}": (digest.encode(), 0o644)}
    for kind, content in [("manifests", digest), *(("blobs", blob) for blob in blobs)]:
        number = content.removeprefix("sha256:")
        files[f"{root}/{kind}/sha256/{number[:2]}/{number}/data"] = (store.path(content), 0o644)
    return Tree(files=files)


def _pet_tree(name: str) -> Tree:
    """The pictures are told apart by what data.json names; nobody looks at them.

    A test takes the image for a volume and knows it by the system that upstream's stands on.
    """
    picture = f"{name}.jpg"
    return Tree(
        files={
            picture: (f"a picture of a {name}\n".encode(), 0o644),
            "etc/os-release": (b'NAME="Alpine Linux"\nID=alpine\n', 0o644),
            "data.json": (f'{{\n  "image": "{picture}"\n}}\n'.encode(), 0o644),
        }
    )


def _certificate() -> tuple[bytes, bytes]:
    """A self-signed certificate of `localhost` for agnhost's `porter`; nobody verifies it."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(start)
    builder = builder.not_valid_after(start + datetime.timedelta(days=36500))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    signed = builder.sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return signed.public_bytes(serialization.Encoding.PEM), private
