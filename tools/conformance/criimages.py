"""The images that critest uses, made on this machine like those of e2e.test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from conformance.oci import Blob, BlobStore, Tree
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

DOMAINS = ("registry.k8s.io", "gcr.io", "k8s.gcr.io")
BINARIES = ("nonewprivs",)
_E2E = "registry.k8s.io/e2e-test-images"
_CRI = "gcr.io/k8s-staging-cri-tools"
_HOST_PORT = 12003  # where critest looks for the web server of the host's network
# Images of which nothing matters but that they are different ones.
_PLAIN = ("test-image-latest:latest", "test-image-tag:test", "test-image-tag:all",
          "test-image-1:latest", "test-image-2:latest", "test-image-3:latest")  # fmt: skip
# critest compares what the image says with what the runtime reports.
_USERS = {"uid": "1002", "username": "www-data", "uid-group": "1003:users", "username-group": "www-data:users"}
# What Debian's static busybox lacks of upstream's.
_PGREP = """#!/bin/sh
status=1
for process in /proc/[0-9]*; do
  read -r name 2>/dev/null <"$process/comm" || continue
  if [ "$name" = "$1" ]; then echo "${process#/proc/}"; status=0; fi
done
exit $status
"""
_IPCS = """#!/bin/sh
[ "$1" = -m ] && exec cat /proc/sysvipc/shm
"""
_PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/:/bin/false\n"
    "default-user:x:1000:1000::/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
)
_GROUP = (
    "root:x:0:\nwww-data:x:33:\nusers:x:100:\ndefault-user:x:1000:\n"
    "group-defined-in-image:x:50000:default-user\nnogroup:x:65534:\n"
)


def ensure(cache: Path, binaries: Mapping[str, Path], say: Callable[[str], None]) -> BlobStore:
    """The blob store with every image, made when any part of them has changed."""
    return ensure_store(cache, "critest", {name: binaries[name] for name in BINARIES}, make, say)


def make(parts: Parts) -> dict[str, str]:
    """Make all images; name to manifest digest."""
    store = parts.store
    busybox = store.layer(busybox_tree(parts.busybox, parts.shell))
    additions = Tree(
        files={
            "etc/passwd": (_PASSWD.encode(), 0o644),
            "etc/group": (_GROUP.encode(), 0o644),
            "bin/sh": (parts.shell, 0o755),  # busybox's runs its own applets, not those of PATH
            "bin/pgrep": (_PGREP.encode(), 0o755),
            "bin/ipcs": (_IPCS.encode(), 0o755),
        }
    )
    base = [busybox, store.layer(additions)]
    setuid = Tree(files={"usr/bin/nnp": (parts.binaries["nonewprivs"], 0o6755)})
    made = {
        f"{_E2E}/busybox:1.29-2": _shell(store, base),
        f"{_E2E}/nonewprivs:1.3": image(store, [*base, store.layer(setuid)], {"Cmd": ["nnp"], "Env": [PATH]}),
        f"{_CRI}/test-image-predefined-group:latest": _shell(store, base, user="1000"),
        f"{_CRI}/test-image-digest:latest": _shell(store, base, label="digest"),
    }
    for name, user in _USERS.items():
        made[f"{_CRI}/test-image-user-{name}:latest"] = _shell(store, base, user=user)
    for name in _PLAIN:
        made[f"{_CRI}/{name}"] = _shell(store, base, label=name)
    same = _shell(store, base, label="test-image-tags")
    made |= {f"{_CRI}/test-image-tags:{tag}": same for tag in (1, 2, 3)}
    pause = image(store, base, {"Cmd": ["sleep", "infinity"], "Env": [PATH]})
    made |= {f"{domain}/pause:3.9": pause for domain in ("registry.k8s.io", "k8s.gcr.io")}
    return made | _web_servers(parts)


def _shell(store: BlobStore, layers: list[Blob], *, user: str = "", label: str = "") -> str:
    config = {"Cmd": ["sh"], "Env": [PATH]}
    return image(
        store, layers, config | ({"User": user} if user else {}) | ({"Labels": {"is": label}} if label else {})
    )


def _web_servers(parts: Parts) -> dict[str, str]:
    """nginx, also where upstream takes another server: only the page counts, and that its log has the server's name.

    `grep` is busybox's, which searches `/proc/1/cmdline` without remarking that it is no text.
    """
    store, debian = parts.store, debian_layer(parts)
    made = {}
    for name, port in (
        (f"{_E2E}/nginx:1.14-2", 80),
        (f"{_E2E}/httpd:2.4.39-4", 80),
        (f"{_CRI}/hostnet-nginx-{versions.architecture()}:latest", _HOST_PORT),
    ):
        tree = nginx_tree(port)
        tree.files["usr/local/bin/grep"] = (parts.busybox, 0o755)
        command = ["sh", "-c", 'echo httpd; exec "$@"', "sh", *NGINX_ARGUMENTS] if "httpd" in name else NGINX_ARGUMENTS
        config = {"Cmd": command, "Env": [PATH], "Labels": {"is": name}}
        made[name] = image(store, [debian, store.layer(tree)], config)
    return made
