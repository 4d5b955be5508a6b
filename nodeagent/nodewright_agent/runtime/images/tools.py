"""Finds tar and what it takes to run it where no other file of the host can be seen."""

import functools
import os
import re
import shutil
import struct
import subprocess

from nodewright_agent.runtime.images.errors import ErrImagePull

_PT_INTERP = 3


def elf_interpreter(path: str) -> str | None:
    """The dynamic loader that an ELF program names, None for a static one; ValueError for anything else."""
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:4] != b"\x7fELF":
            raise ValueError(f"{path} is not an ELF program")
        wide, order = head[4] == 2, "<" if head[5] == 1 else ">"
        table = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)[0]
        size, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
        for i in range(count):
            file.seek(table + i * size)
            entry = file.read(size)
            if struct.unpack_from(order + "I", entry)[0] == _PT_INTERP:
                offset = struct.unpack_from(order + ("Q" if wide else "I"), entry, 8 if wide else 4)[0]
                length = struct.unpack_from(order + ("Q" if wide else "I"), entry, 32 if wide else 16)[0]
                file.seek(offset)
                return file.read(length).rstrip(b"\0").decode()
    return None


@functools.cache
def tar_tools() -> tuple[str, ...]:
    """`NAME=PATH` of every file that running GNU tar takes: `tar`, `ld.so` and its libraries.

    Raises ErrImagePull when there is no GNU tar. Looked up once per process.
    """
    tar = shutil.which("tar")
    version = subprocess.run([tar, "--version"], capture_output=True, check=False).stdout if tar else b""
    if not tar or b"GNU tar" not in version:
        raise ErrImagePull("GNU tar is not installed; image layers cannot be unpacked")
    found = {"tar": os.path.realpath(tar)}
    loader = elf_interpreter(tar)
    if loader is not None:
        found["ld.so"] = os.path.realpath(loader)
        listing = subprocess.run([loader, "--list", tar], capture_output=True, check=True, text=True).stdout
        for name, path in re.findall(r"^\s*(\S+) => (/\S+) \(", listing, re.MULTILINE):
            found[os.path.basename(name)] = os.path.realpath(path)
    return tuple(f"{name}={path}" for name, path in found.items())
