"""The interpreter and its standard library, without the parts that no service uses."""

from __future__ import annotations

import fnmatch
import os
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from rootfs import Tree

# Development, desktop and teaching; data bases and terminals with large libraries of their own; double-byte codecs.
LEAVE_OUT = (
    "test", "tests", "idlelib", "tkinter", "turtle.py", "turtledemo", "ensurepip", "lib2to3", "pydoc_data", "pydoc.py",
    "venv", "config-*", "distutils", "__pycache__", "site-packages", "dist-packages", "dbm", "curses",
    "_sysconfigdata*_d_*", "LICENSE.txt", "__phello__", "sitecustomize.py", "doctest.py", "cgi.py",
    "lib-dynload/_dbm.*", "lib-dynload/_gdbm.*", "lib-dynload/_curses*",
    "lib-dynload/readline.*", "lib-dynload/nis.*", "lib-dynload/ossaudiodev.*", "lib-dynload/_tkinter.*",
    "lib-dynload/_test*", "lib-dynload/_xx*", "lib-dynload/xx*", "lib-dynload/_codecs_*", "lib-dynload/audioop.*",
    "lib-dynload/_crypt.*",
)  # fmt: skip


def copy_interpreter(tree: Tree, leave_out: Iterable[str] = ()) -> None:
    """Copy the running interpreter as `python3`, and its standard library without LEAVE_OUT and `leave_out`."""
    patterns = (*LEAVE_OUT, *leave_out)
    executable = Path(os.path.realpath(sys.executable))
    tree.copy(executable)
    link = executable.with_name("python3")
    if not tree.at(link).exists():
        tree.at(link).symlink_to(executable.name)
    library = Path(sysconfig.get_path("stdlib"))
    for top, folders, files in os.walk(library):
        here = Path(top).relative_to(library)
        folders[:] = [name for name in folders if not _matches(here / name, patterns)]
        for name in files:
            if not _matches(here / name, patterns):
                tree.copy(Path(top) / name)


def _matches(path: Path, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(str(path), pattern) or fnmatch.fnmatch(path.name, pattern) for pattern in patterns)
