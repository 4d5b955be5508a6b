"""The folder that becomes an image: copying into it, the libraries that its programs need, and its last touches."""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
import subprocess
from pathlib import Path

_ELF, _PT_LOAD, _PAGE = b"\x7fELF", 1, 4096
# glibc loads it by name when a thread is cancelled or ends early; ldd cannot see that.
_LOADED_LATER = "libgcc_s.so.1"


class Tree:
    """The image's files below `root`, at the paths that they have in the builder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def skeleton(self) -> None:
        """Make the folders that every image has, and the links of a merged /usr."""
        for name in ("etc", "proc", "sys", "dev", "run", "root", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "var"):
            (self.root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.root / name).symlink_to(f"usr/{name}")
        (self.root / "tmp").mkdir()
        (self.root / "tmp").chmod(0o1777)
        (self.root / "var/run").symlink_to("/run")

    def at(self, path: Path | str) -> Path:
        """Where the builder's `path` lies in the image's folder."""
        return self.root / str(path).lstrip("/")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of our own."""
        target = self.at(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def copy(self, path: Path) -> None:
        """Copy a file of the builder; a link with what it leads to."""
        path = Path(os.path.realpath(path.parent)) / path.name
        target = self.at(path)
        if target.is_symlink() or target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(os.readlink(path))
            self.copy(path.parent / os.readlink(path))
        else:
            shutil.copy2(path, target)

    def copy_program(self, name: str) -> None:
        """Copy the program that PATH finds under `name`."""
        self.copy(find(name))

    def add_libraries(self) -> None:
        """Copy the loader and every library that the programs and libraries in the tree need."""
        libraries = set()
        for path in sorted(self.files()):
            if is_elf(path):
                libraries |= needed(path)
        directory = next(iter(sorted(libraries))).parent if libraries else Path("/lib")
        for library in sorted(libraries | {lib for lib in {directory / _LOADED_LATER} if lib.exists()}):
            if not library.is_relative_to(self.root):
                self.copy(library)

    def files(self) -> list[Path]:
        """Every regular file in the tree."""
        return [
            Path(top) / name for top, _, names in os.walk(self.root) for name in names if _regular(Path(top) / name)
        ]

    def strip(self) -> None:
        """Take symbols out of programs and libraries, a sixth of an image.

        Wheels carry libraries that were patched to find each other. strip breaks some of these: it leaves segments
        that the loader refuses. Such files stay as they came.
        """
        for path in sorted(self.files()):
            if is_elf(path):
                small = path.with_name(path.name + ".stripped")
                subprocess.run(["strip", "--strip-unneeded", "-o", str(small), str(path)], check=True)
                if loadable(small):
                    small.chmod(path.stat().st_mode & 0o7777)
                    small.replace(path)
                else:
                    small.unlink()

    def finish(self, epoch: int) -> None:
        """Give every file the same owner and time."""
        for top, names, files in os.walk(self.root):
            for name in names + files:
                path = Path(top) / name
                os.lchown(path, 0, 0)
                os.utime(path, (epoch, epoch), follow_symlinks=False)
        os.utime(self.root, (epoch, epoch))


def find(name: str) -> Path:
    """The program `name` of the builder; FileNotFoundError when it has none."""
    found = shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
    if found is None:
        raise FileNotFoundError(f"the builder has no program {name}")
    return Path(found)


def is_elf(path: Path) -> bool:
    """Whether `path` is a program or library."""
    with path.open("rb") as file:
        return file.read(4) == _ELF


def loadable(path: Path) -> bool:
    """Whether every loaded segment of a 64-bit program or library lies as far into its page as in the file."""
    data = path.read_bytes()
    table, (size, count) = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<HH", data, 54)
    for at in range(table, table + size * count, size):
        kind, offset, address = struct.unpack_from("<I4xQQ", data, at)
        if kind == _PT_LOAD and (offset - address) % _PAGE:
            return False
    return True


def needed(path: Path) -> set[Path]:
    """The loader and libraries that `path` needs, by ldd; FileNotFoundError when one is missing."""
    done = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False)
    if "not a dynamic executable" in done.stderr or "statically linked" in done.stdout:
        return set()
    done.check_returncode()
    if missing := re.findall(r"^\s*(\S+) => not found", done.stdout, re.MULTILINE):
        raise FileNotFoundError(f"{path} needs {', '.join(missing)}")
    return {Path(found) for found in re.findall(r"(?:=> |^\s*)(/\S+) \(", done.stdout, re.MULTILINE)}


def _regular(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)
