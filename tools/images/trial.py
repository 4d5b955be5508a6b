"""Starts what is in the tree, confined to it: shows that nothing is missing, and learns what is worth compiling."""

from __future__ import annotations

import compileall
import json
import subprocess
import sys
from py_compile import PycInvalidationMode

from rootfs import Tree

# Runs inside: imports each module of each package, loads each verb, tells which files were read; then starts each verb
# as far as its help, which takes the modules that draw it. Nobody waits for those, so they are not compiled.
_INSIDE = """
import contextlib, importlib, io, json, pkgutil, sys
packages, verbs = json.loads(sys.argv[1])
for package in map(importlib.import_module, packages):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
from nodewright.cli.main import build, main
for verb in verbs:
    build(verb)
files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
print(json.dumps(sorted(file for file in files if file and file.endswith(".py"))))
for verb in verbs:
    with contextlib.redirect_stdout(io.StringIO()):
        code = main([verb, "--help"])
    if code:
        sys.exit(f"nodewright {verb} --help ended with {code}")
"""


def run(tree: Tree, packages: list[str], verbs: list[str]) -> None:
    """Import all modules of `packages` and start `verbs` in the tree; compile what that imported.

    Compiled modules save half a second and several MB of memory at each start; all others would only take room.
    They are never compared with their sources (unchecked): times of files differ between builds, these must not.
    Raises CalledProcessError when anything fails to start.
    """
    done = subprocess.run(
        ["chroot", str(tree.root), sys.executable, "-B", "-s", "-c", _INSIDE, json.dumps([packages, verbs])],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    for file in json.loads(done.stdout):
        compiled = compileall.compile_file(
            tree.at(file), stripdir=str(tree.root), quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
        )
        if not compiled:
            raise ValueError(f"{file} cannot be compiled")
