"""kind and Helm that are installed already: used when they are the release that the tests were made with, or newer."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from nodewright.controlplane import versions

# Helm 4 has the same program name as Helm 3; which one is on PATH shows in its version.
_ASK = {"kind": ("kind", "version"), "helm": ("helm", "version", "--short"), "helm4": ("helm", "version", "--short")}
_VERSION = re.compile(r"v(\d+)\.(\d+)")
_TIMEOUT = 10.0  # seconds


def find(name: str, environ: Mapping[str, str]) -> Path | None:
    """The program on PATH, when its major version is ours and its minor version not older."""
    program, *arguments = _ASK[name]
    found = shutil.which(program, path=environ.get("PATH", ""))
    if found is None:
        return None
    try:
        answer = subprocess.run(
            [found, *arguments], env=dict(environ), capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None  # a program that cannot even tell its version is none to rely on
    return Path(found) if answer.returncode == 0 and new_enough(answer.stdout, versions.release_of(name)[1]) else None


def new_enough(answer: str, wanted: str) -> bool:
    """Whether the first version in `answer` has the major of `wanted` and at least its minor."""
    have, want = _VERSION.search(answer), _VERSION.search(wanted)
    if have is None or want is None:
        return False
    return have[1] == want[1] and int(have[2]) >= int(want[2])
