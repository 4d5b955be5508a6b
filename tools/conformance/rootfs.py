"""The Debian tree that most test images stand on, by debootstrap from the mirror that this machine's apt uses."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from conformance.errors import Missing

RELEASE = "bookworm"
# What the tests call in their containers: curl, nc, dig, ss, ping, nginx, ps, and the tools of every Debian.
PACKAGES = ("bind9-dnsutils", "curl", "iproute2", "iputils-ping", "netcat-openbsd", "nginx-light", "procps")
_LEFT_OUT = ("./dev/*", "./usr/share/doc/*", "./usr/share/man/*", "./usr/share/locale/*", "./usr/share/info/*",
             "./var/cache/apt/*", "./var/lib/apt/lists/*", "./var/log/*")  # fmt: skip


def key() -> str:
    """Changes with what the tree consists of."""
    text = " ".join((RELEASE, *PACKAGES, *_LEFT_OUT))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def archive(cache: Path) -> Path:
    """A tar archive of the tree, made once (a minute or two) and kept in `cache`; Missing without debootstrap."""
    target = cache / f"rootfs-{key()}.tar"
    if target.exists():
        return target
    if shutil.which("debootstrap") is None:
        raise Missing("debootstrap is not installed", "apt-get install debootstrap")
    tree, log, part = cache / f"rootfs.{os.getpid()}", cache / "debootstrap.log", target.with_suffix(".part")
    tree.mkdir(parents=True)
    tree.chmod(0o755)
    try:
        _debootstrap(tree, log)
        left_out = [f"--exclude={pattern}" for pattern in _LEFT_OUT]
        form = ("--sort=name", "--numeric-owner", "--one-file-system", "--mtime=@0", "--format=pax")
        subprocess.run(["tar", "-C", tree, *form, *left_out, "-cf", part, "."], check=True)
        os.replace(part, target)
    finally:
        shutil.rmtree(tree, ignore_errors=True)
        part.unlink(missing_ok=True)
    return target


def account_files(rootfs: Path) -> dict[str, str]:
    """`etc/passwd` and `etc/group` of the tree, to be extended in a layer above."""
    import tarfile

    with tarfile.open(rootfs) as tar:
        found = {}
        for name in ("etc/passwd", "etc/group"):
            member = tar.extractfile(f"./{name}")
            assert member is not None
            found[name] = member.read().decode()
    return found


def _debootstrap(tree: Path, log: Path) -> None:
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True, check=True
    ).stdout.split()
    mirror = next((target for target in targets if "debian" in target.lower()), None)
    if mirror is None:
        raise Missing("this machine's apt names no Debian mirror", "apt-get update")
    argv = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", RELEASE, str(tree), mirror]
    with log.open("wb") as output:
        result = subprocess.run(argv, stdout=output, stderr=subprocess.STDOUT, check=False)
    if result.returncode != 0:
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise Missing(f"debootstrap failed: {' '.join(last)}", f"the whole log: {log}")
