"""What test images are made of, and the folders that keep them: shared by the images of e2e.test and of critest.

Their contents are what the tests rely on, not upstream's bytes: Go programs from the Go module proxy, Debian's packages
where upstream takes Alpine's, Debian's static busybox. Its shell drops environment variables whose names are no
identifiers, which tests look for: where there are such, Debian's static bash takes its place. Only there: other tests
look for the words of busybox's errors.
"""

from __future__ import annotations

import hashlib
import inspect
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance import rootfs
from conformance.errors import Missing
from conformance.oci import Blob, BlobStore, Tree
from nodewright.controlplane import versions

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NGINX_ARGUMENTS = ["nginx", "-g", "daemon off;"]
_NGINX = """user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr;
events {{ worker_connections 256; }}
http {{
  include mime.types;
  access_log /dev/stdout;
  server {{ listen {port}; root /usr/share/nginx/html; }}
}}
"""
_PAGE = "<html><head><title>Welcome to nginx!</title></head><body><h1>Welcome to nginx!</h1></body></html>\n"
_BUSYBOX_USERS = (
    "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
)
_BUSYBOX_GROUPS = "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n"
_SH = """#!/bin/bash
while IFS= read -r -d '' one; do
  [[ ${one%%=*} =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || exec -a "$0" /bin/bash "$@"
done </proc/self/environ
exec -a "$0" /bin/busybox "$@"
"""


@dataclass(frozen=True)
class Parts:
    """What images are made of: the blob store, the Debian tree, busybox, its shell, and the Go binaries by name."""

    store: BlobStore
    debian: Path
    busybox: Path
    shell: Path
    binaries: Mapping[str, Path]


def ensure_store(
    cache: Path,
    kind: str,
    binaries: Mapping[str, Path],
    make: Callable[[Parts], dict[str, str]],
    say: Callable[[str], None],
) -> BlobStore:
    """The blob store of this `kind` with every image that `make` names, made when any part of them has changed."""
    cache.mkdir(parents=True, exist_ok=True)
    busybox, shell = static("busybox", "busybox-static"), static("bash-static", "bash-static")
    key = _key(make, [busybox, shell, *(binaries[name] for name in sorted(binaries))])
    store = BlobStore(cache / f"{kind}-{key}")
    if store.names():
        return store
    say("making the test images")
    for old in cache.glob(f"{kind}-*"):
        shutil.rmtree(old)
    store.set_names(make(Parts(store, rootfs.archive(cache), busybox, shell, binaries)))
    return store


def static(program: str, package: str) -> Path:
    """A program of this machine that needs no libraries, since its image has none; Missing names the `package`."""
    found = shutil.which(program)
    if found is None:
        raise Missing(f"there is no {program}", f"apt-get install {package}")
    with open(found, "rb") as file:
        if b"/lib64/ld-linux" in file.read(1 << 12):
            raise Missing(f"{found} is not linked statically", f"apt-get install {package}")
    return Path(found)


def image(store: BlobStore, layers: list[Blob], config: Mapping[str, Any]) -> str:
    """Store an image for this machine's architecture; its manifest's digest."""
    return store.image(layers, config, versions.architecture())


def debian_layer(parts: Parts) -> Blob:
    """The Debian tree as a layer."""
    copy = parts.store.root / "rootfs.tar"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(parts.debian, copy)
    return parts.store.add_file(copy)


def busybox_tree(busybox: Path, shell: Path) -> Tree:
    """busybox under the names of all its applets; `sh` is `shell` where busybox's own would lose variables."""
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return Tree(
        files={
            "bin/busybox": (busybox, 0o755),
            "bin/bash": (shell, 0o755),
            "bin/sh": (_SH.encode(), 0o755),
            "etc/passwd": (_BUSYBOX_USERS.encode(), 0o644),
            "etc/group": (_BUSYBOX_GROUPS.encode(), 0o644),
        },
        links={f"bin/{applet}": "busybox" for applet in applets if applet not in ("busybox", "sh")}
        | {"usr/bin/env": "/bin/env"},
        folders={"tmp": 0o1777, "root": 0o700, "var/run": 0o755, "var/log": 0o755, "home": 0o755},
    )


def nginx_tree(port: int = 80) -> Tree:
    """What a Debian tree needs for nginx to serve its page on `port`."""
    return Tree(
        files={
            "etc/nginx/nginx.conf": (_NGINX.format(port=port).encode(), 0o644),
            "usr/share/nginx/html/index.html": (_PAGE.encode(), 0o644),
        },
        folders={"var/log/nginx": 0o755},
    )


def _key(make: Callable[[Parts], dict[str, str]], programs: Sequence[Path]) -> str:
    """Changes with anything that goes into an image: programs, which count by size and time, and the code."""
    found = hashlib.sha256(rootfs.key().encode())
    for source in (__file__, inspect.getfile(make)):
        found.update(Path(source).read_bytes())
    for path in programs:
        info = path.stat()
        found.update(f"{path} {info.st_size} {info.st_mtime_ns}\n".encode())
    return found.hexdigest()[:12]
