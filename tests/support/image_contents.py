"""What may and what may not be in our container images, found from an image's files as `docker export` gives them.

    python tests/support/image_contents.py operator ROOTFS.tar

prints every objection, and fails when there is one. Needs nothing but the standard library and the archive.
"""

from __future__ import annotations

import re
import stat
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    path: str
    mode: int
    size: int
    kind: bytes
    mtime: float
    uid: int


# Top-level packages below site-packages that belong to the other half, or to development.
FOREIGN = {
    "operator": ("nodewright_agent", "nodewright/controlplane"),
    "agent": (
        "kopf", "numpy", "numpy.libs", "nodewright/controllers", "nodewright/scheduler", "nodewright/framework",
        "nodewright/controlplane", "nodewright/crds",
    ),
}  # fmt: skip
REQUIRED = {
    "operator": ("nodewright/controllers", "nodewright/scheduler", "kopf", "numpy"),
    "agent": ("nodewright_agent", "nodewright/kube"),
}
DEVELOPMENT = re.compile(
    r"/(pip|setuptools|wheel|pytest|mypy|hypothesis|idlelib|tkinter|lib2to3|ensurepip|kubernetes)(/|-[^/]*/)"
    r"|/(tests?|f2py|distutils)/|\.(pyi|h|c|a|pxd|pyx)$"
)
PROGRAMS = re.compile(
    r"^(usr/)?(local/)?s?bin/(.*-)?(gcc|cc|g\+\+|cpp|ld|as|make|go|apt|apt-get|dpkg|pip\d?|perl|curl|wget)$"
)
SHELL = re.compile(r"^(usr/)?(local/)?s?bin/(sh|bash|dash|busybox)$")
SECRETS = re.compile(r"\.(pem|key|p12)$|(^|/)(id_rsa|\.netrc|\.pypirc|pip\.conf|\.git)(/|$)|kubeconfig$")
MANY_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"


def entries(archive: Path) -> dict[str, Entry]:
    """The archive's members by path, without those that Docker makes in every container."""
    made = re.compile(r"^(\.dockerenv|(dev|proc|sys)(/.*)?|etc/(hosts|hostname|resolv\.conf|mtab)|etc)$")
    with tarfile.open(archive) as tar:
        members = [
            Entry(m.name.removeprefix("./").rstrip("/"), m.mode, m.size, m.type, m.mtime, m.uid)
            for m in tar.getmembers()
        ]
    return {entry.path: entry for entry in members if not made.match(entry.path)}


def objections(image: str, files: dict[str, Entry]) -> Iterator[str]:
    """Everything that speaks against these files as the image `image` (operator or agent)."""
    site = _site(files)
    for name in FOREIGN[image]:
        if any(path == f"{site}/{name}" or path.startswith(f"{site}/{name}/") for path in files):
            yield f"holds {name}, which the {image} does not use"
    for name in REQUIRED[image]:
        if f"{site}/{name}" not in files:
            yield f"lacks {name}"
    for path in ("usr/local/bin/nodewright", MANY_CERTIFICATES, "etc/passwd", "etc/nsswitch.conf"):
        if path not in files:
            yield f"lacks {path}"
    for path, entry in files.items():
        yield from _about(image, path, entry)


def _about(image: str, path: str, entry: Entry) -> Iterator[str]:
    if DEVELOPMENT.search(f"/{path}"):
        yield f"{path}: only development uses it"
    if PROGRAMS.match(path) or (image == "operator" and SHELL.match(path)):
        yield f"{path}: no program for a service"
    if SECRETS.search(path):
        yield f"{path}: may be a secret"
    if entry.uid != 0:
        yield f"{path}: belongs to user {entry.uid}"
    if entry.kind == tarfile.SYMTYPE:
        return
    if entry.mode & (stat.S_ISUID | stat.S_ISGID):
        yield f"{path}: runs with its owner's rights"
    if entry.mode & stat.S_IWOTH and path != "tmp":
        yield f"{path}: anybody may write"


def _site(files: dict[str, Entry]) -> str:
    """The folder of the packages."""
    found = [
        path.removesuffix("/nodewright") for path in files if re.search(r"/(site|dist)-packages/nodewright$", path)
    ]
    return found[0] if found else "missing"


if __name__ == "__main__":
    found = list(objections(sys.argv[1], entries(Path(sys.argv[2]))))
    print("\n".join(found) or "nothing to object to")
    sys.exit(bool(found))
