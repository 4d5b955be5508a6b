"""The images that the conformance tests use, made on this machine instead of being pulled.

Their contents are what the tests rely on, not upstream's bytes: Go programs from the Go module proxy, Debian's packages
where upstream takes Alpine's, Debian's static busybox with Debian's static bash as its shell: that busybox's own drops
environment variables whose names are no identifiers, which tests look for.
"""

from __future__ import annotations

import hashlib
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

DOMAIN = "registry.k8s.io"
BINARIES = ("agnhost", "nonewprivs", "sample-apiserver", "coredns", "etcd")
COREDNS_IMAGE = f"{DOMAIN}/coredns/coredns:{versions.COREDNS}"
_FORMAT = 2  # raise it when what is made below changes
_E2E = f"{DOMAIN}/e2e-test-images"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# PID 1 ignores signals without a handler: without the trap, deletion would take the whole grace period.
_PAUSE = """#!/bin/sh
trap 'kill $! 2>/dev/null; exit 0' TERM INT
while :; do sleep 86400 & wait $!; done
"""
_NGINX = """user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /dev/stderr;
events { worker_connections 256; }
http {
  include mime.types;
  access_log /dev/stdout;
  server { listen 80; root /usr/share/nginx/html; }
}
"""
_PAGE = "<html><head><title>Welcome to nginx!</title></head><body><h1>Welcome to nginx!</h1></body></html>\n"
_BUSYBOX_USERS = (
    "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
)
_BUSYBOX_GROUPS = "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n"


@dataclass(frozen=True)
class Parts:
    """What images are made of: the blob store, the Debian tree, busybox, its shell, and the Go binaries by name."""

    store: BlobStore
    debian: Path
    busybox: Path
    shell: Path
    binaries: Mapping[str, Path]


def ensure(cache: Path, binaries: Mapping[str, Path], say: Callable[[str], None]) -> BlobStore:
    """The blob store with every image, made when any part of them has changed."""
    busybox, shell = static("busybox", "busybox-static"), static("bash-static", "bash-static")
    key = _key([busybox, shell, *(binaries[name] for name in BINARIES)])
    store = BlobStore(cache / f"images-{key}")
    if store.names():
        return store
    say("making the test images")
    for old in cache.glob("images-*"):
        shutil.rmtree(old)
    parts = Parts(store, rootfs.archive(cache), busybox, shell, binaries)
    store.set_names(make(parts))
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


def make(parts: Parts) -> dict[str, str]:
    """Make all images; name to manifest digest."""
    store = parts.store
    debian = _debian_layer(parts)
    tools = store.layer(_agnhost_tree(parts))
    busybox = store.layer(_busybox_tree(parts.busybox, parts.shell))
    agnhost = {"Entrypoint": ["/agnhost"], "Cmd": ["pause"], "Env": [_PATH]}
    shell: dict[str, Any] = {"Cmd": ["sh"], "Env": [_PATH]}
    bash: dict[str, Any] = {"Cmd": ["bash"], "Env": [_PATH]}
    made = {
        f"{_E2E}/agnhost:{versions.AGNHOST}": _image(store, [debian, tools], agnhost),
        f"{_E2E}/agnhost:2.55": _image(store, [debian, tools], agnhost | {"Labels": {"version": "2.55"}}),
        f"{_E2E}/glibc-dns-testing:2.0.0": _image(store, [debian], bash),
        f"{_E2E}/ipc-utils:1.4": _image(store, [debian], bash),
        f"{_E2E}/perl:5.26": _image(store, [debian], bash),
        f"{_E2E}/nonroot:1.5": _image(store, [debian], bash | {"User": "1234"}),
        f"{_E2E}/busybox:1.37.0-1": _image(store, [busybox], shell),
        f"{_E2E}/busybox:1.36.1-1": _image(store, [busybox], shell | {"Labels": {"version": "1.36.1-1"}}),
    }
    for name in ("kitten:1.8", "nautilus:1.8"):
        layers = [debian, tools, store.layer(_pet_tree(name.partition(":")[0]))]
        made[f"{_E2E}/{name}"] = _image(store, layers, agnhost | {"Cmd": ["test-webserver"]})
    nginx = store.layer(_nginx_tree())
    for name in ("nginx:1.15-4", "nginx:1.27-0"):
        config = {"Cmd": ["nginx", "-g", "daemon off;"], "Env": [_PATH], "Labels": {"version": name}}
        made[f"{_E2E}/{name}"] = _image(store, [debian, nginx], config)
    setuid = Tree(files={"usr/local/bin/nnp": (parts.binaries["nonewprivs"], 0o6755)})
    made[f"{_E2E}/nonewprivs:1.4"] = _image(store, [busybox, store.layer(setuid)], {"Cmd": ["nnp"], "Env": [_PATH]})
    pause = Tree(files={"pause": (_PAUSE.encode(), 0o755)})
    made[f"{DOMAIN}/pause:3.10.2"] = _image(store, [busybox, store.layer(pause)], {"Entrypoint": ["/pause"]})
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
        made[name] = _image(store, [store.layer(tree)], {"Entrypoint": [f"/{path}"], "Env": [_PATH]})
    return made


def _image(store: BlobStore, layers: list[Blob], config: Mapping[str, Any]) -> str:
    return store.image(layers, config, versions.architecture())


def _debian_layer(parts: Parts) -> Blob:
    copy = parts.store.root / "rootfs.tar"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(parts.debian, copy)
    return parts.store.add_file(copy)


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


def _busybox_tree(busybox: Path, shell: Path) -> Tree:
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return Tree(
        files={
            "bin/busybox": (busybox, 0o755),
            "bin/sh": (shell, 0o755),
            "etc/passwd": (_BUSYBOX_USERS.encode(), 0o644),
            "etc/group": (_BUSYBOX_GROUPS.encode(), 0o644),
        },
        links={f"bin/{applet}": "busybox" for applet in applets if applet not in ("busybox", "sh")}
        | {"usr/bin/env": "/bin/env"},
        folders={"tmp": 0o1777, "root": 0o700, "var/run": 0o755, "var/log": 0o755, "home": 0o755},
    )


def _nginx_tree() -> Tree:
    return Tree(
        files={
            "etc/nginx/nginx.conf": (_NGINX.encode(), 0o644),
            "usr/share/nginx/html/index.html": (_PAGE.encode(), 0o644),
        },
        folders={"var/log/nginx": 0o755},
    )


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


def _key(programs: Sequence[Path]) -> str:
    """Changes with anything that goes into an image; programs count by size and time."""
    parts = [f"{_FORMAT}", rootfs.key()]
    for path in programs:
        info = path.stat()
        parts.append(f"{path} {info.st_size} {info.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
