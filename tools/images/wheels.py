"""Installs the wheels with their hashes, and leaves out what runs nowhere."""

from __future__ import annotations

import fnmatch
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

from rootfs import Tree

_PIP = "/usr/share/python-wheels/pip-*.whl"
# For compilers, type checkers and tests; and pip's notes, which list files that are gone by then. Licences stay.
_USELESS = ("*.pyi", "py.typed", "*.pxd", "*.pyx", "*.h", "*.hpp", "*.c", "*.a", "*.lib", "tests", "test", "include",
            "RECORD", "INSTALLER", "REQUESTED", "direct_url.json")  # fmt: skip
_START = """#!{python} -s
import sys
from nodewright.cli.main import run
sys.exit(run())
"""


def install(tree: Tree, wheels: Path, leave_out: list[str]) -> None:
    """Install the wheels of `wheels` where the interpreter looks for packages, without what `leave_out` matches.

    `leave_out`: patterns of paths below site-packages. Raises ValueError for one that matches nothing.
    """
    target = tree.at(site.getsitepackages()[0])
    _pip_install(wheels, target)
    shutil.rmtree(target / "bin", ignore_errors=True)
    for pattern in leave_out:
        found = sorted(target.glob(pattern))
        if not found:
            raise ValueError(f"leave_out: {pattern} matches nothing")
        for path in found:
            _remove(path)
    for top, folders, files in os.walk(target):
        for name in [name for name in folders + files if any(fnmatch.fnmatch(name, p) for p in _USELESS)]:
            _remove(Path(top) / name)
        folders[:] = [name for name in folders if (Path(top) / name).exists()]
    tree.write("usr/local/bin/nodewright", _START.format(python=Path(sys.executable)), 0o755)


def _pip_install(wheels: Path, target: Path) -> None:
    """Run Debian's pip from its wheel: it needs no installation, and stays in the builder."""
    pip = max(Path("/").glob(_PIP.lstrip("/")))
    subprocess.run(
        [sys.executable, f"{pip}/pip", "install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore",
         "--no-index", "--no-cache-dir", "--no-compile", "--no-deps", "--require-hashes", "--find-links", str(wheels),
         "--target", str(target), "-r", str(wheels / "requirements.txt")],
        check=True,
    )  # fmt: skip


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
