"""Gather the files of an image into one folder: Python, packages, programs, and the libraries all these need.

    python3 collect.py image.toml WHEELS ROOT

Runs as root in the builder stage of the Dockerfiles, on a Debian system that has the packages of `packages`; needs
the standard library only. Everything that the folder holds is named here or in the TOML file, or follows from it
by ldd. The same inputs give the same files: no time, no temporary path, no order of a directory gets in.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

import hosttools
import rootfs
import stdlib
import trial
from wheels import install

ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/nonexistent:/sbin/nologin\n",
    "etc/group": "root:x:0:\nnonroot:x:65532:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def main(config: Path, wheels: Path, root: Path) -> None:
    """Fill `root` as `config` says."""
    wanted = tomllib.loads(config.read_text())
    tree = rootfs.Tree(root)
    tree.skeleton()
    for name, text in ACCOUNTS.items():
        tree.write(name, text)
    tree.copy(CERTIFICATES)
    stdlib.copy_interpreter(tree, wanted.get("leave_out_stdlib", ()))
    install(tree, wheels, leave_out=wanted["leave_out"])
    for program in wanted.get("programs", ()):
        tree.copy_program(program)
    for pattern in wanted.get("files", ()):
        for path in sorted(Path("/").glob(pattern.lstrip("/"))):
            tree.copy(path)
    tree.add_libraries()
    tree.strip()
    trial.run(tree, wanted["packages"], wanted["verbs"])
    if "host_programs" in wanted:
        hosttools.make(tree, wanted["host_programs"])
    tree.finish(int(os.environ.get("SOURCE_DATE_EPOCH", "0")))


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:4]))
