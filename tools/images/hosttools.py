"""/opt/nodewright/host: runc and conmon with all their libraries, for hosts that have neither.

The agent copies the folder to PREFIX on the host and runs the programs there, in the host's mount namespace. ELF
interpreter and library path are absolute and point into PREFIX, so nothing of the host's own libraries is used.
PREFIX ends in a hash of the contents: another version gets another folder, and containers of the old one go on.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from rootfs import Tree, find, needed

FOLDER = "/opt/nodewright/host"
PARENT = "/var/lib/nodewright/host"


def make(tree: Tree, programs: list[str]) -> None:
    """Fill FOLDER in the image's tree."""
    files = {f"bin/{name}": Path(os.path.realpath(find(name))) for name in programs}
    for program in list(files.values()):
        files |= {f"lib/{library.name}": library for library in needed(program)}
    prefix = f"{PARENT}/{_hash(files)}"
    loader = next(name for name in sorted(files) if name.startswith("lib/ld-"))
    for name, source in sorted(files.items()):
        target = tree.at(f"{FOLDER}/{name}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o755)
        if name.startswith("bin/"):
            _patchelf("--set-interpreter", f"{prefix}/{loader}", "--set-rpath", f"{prefix}/lib", target)
        elif name != loader:
            _patchelf("--set-rpath", f"{prefix}/lib", target)
    tree.write(f"{FOLDER}/PREFIX", f"{prefix}\n")
    # In a container that does not mount the host's folder the programs run as well.
    link = tree.at(prefix)
    link.parent.mkdir(parents=True)
    link.symlink_to(FOLDER)


def _hash(files: dict[str, Path]) -> str:
    """Of names and contents before they are patched, since the patch holds the result."""
    total = hashlib.sha256()
    for name, source in sorted(files.items()):
        total.update(f"{name} {hashlib.sha256(source.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def _patchelf(*arguments: str | Path) -> None:
    subprocess.run(["patchelf", *map(str, arguments)], check=True)
