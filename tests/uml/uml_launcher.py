"""Runs a command inside user-mode Linux: a kernel with ip_vs, dummy links and cgroup v2 as an ordinary process.

The root is an overlay over this machine's own file tree, so the command finds every program and the repository at its
usual path, and whatever it writes is gone afterwards. One host directory is writable: the results.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

KERNEL = "linux.uml"
MODULES = Path("/usr/lib/uml/modules")
_SHIM_SOURCE = Path(__file__).with_name("xstate_shim.c")
_GRACE_SECONDS = 40.0
"""For boot, killing a command that ran too long, and power-off."""

# A module that the kernel loads by itself is looked for in the first root, modprobe by hand looks in the second; so the
# program that the kernel calls is one of ours, in both, which knows where modules are (a machine without a kernel
# package has no /lib/modules to bind them on). pivot_root rather than chroot, so that user namespaces stay possible.
# Scratch files go to a tmpfs of their own: overlay mounts of a test need it, and /tmp may be where the repository is.
_INIT = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
loader() {{
    mkdir -p $1/base/lib/modules
    mount --bind {modules} $1/base/lib/modules
    printf '#!/bin/sh\\nexec /sbin/modprobe -d /run/base "$@"\\n' >$1/modprobe
    chmod 755 $1/modprobe
}}
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o size=50% tmpfs /run
loader /run
echo /run/modprobe >/proc/sys/kernel/modprobe
/run/modprobe overlay
mkdir /run/layer /run/layer/upper /run/layer/work /run/layer/root
mount -t overlay overlay -o lowerdir=/,upperdir=/run/layer/upper,workdir=/run/layer/work /run/layer/root || exit 99
cd /run/layer/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs dev dev
mkdir -p dev/pts dev/shm
mount -t devpts devpts dev/pts
mount -t tmpfs shm dev/shm
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
loader run
mkdir -p lib/modules run/results run/first run/scratch
mount --bind .{modules} lib/modules
mount -t hostfs none run/results -o {results}
ip link set lo up
pivot_root . run/first
cd /
umount -l run/first
cd {folder}
export UML_RESULTS=/run/results
export TMPDIR=/run/scratch
{environment}
setsid timeout -k 5 {limit} {command} </dev/null >/run/results/output 2>&1
echo $? >/run/results/status.new
mv /run/results/status.new /run/results/status
sync
echo o >/proc/sysrq-trigger
sleep 60
"""


class UmlError(RuntimeError):
    """The kernel did not get to the end of the command; has the end of its console."""


class UmlResult(NamedTuple):
    """How the command ended, and what it wrote."""

    status: int
    output: str


def missing() -> str | None:
    """Say what this machine lacks for user-mode Linux, None where it can run."""
    if shutil.which(KERNEL) is None or not MODULES.is_dir():
        return f"{KERNEL} is not installed (Debian package user-mode-linux)"
    if not Path("/sbin/modprobe").exists():
        return "/sbin/modprobe is not installed (Debian package kmod)"
    return None


def shim(cache: Path) -> Path | None:
    """Compile the ptrace wrapper once for each version of its source; None without a C compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    digest = hashlib.sha256(_SHIM_SOURCE.read_bytes()).hexdigest()[:16]
    target = cache / f"uml-xstate-{digest}.so"
    if target.exists() or compiler is None:
        return target if target.exists() else None
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        built = Path(folder) / target.name
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(built), str(_SHIM_SOURCE)], check=True)
        built.replace(target)
    return target


def default_cache() -> Path:
    """Where the wrapper is kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nodewright" / "tests"


def _init_text(
    command: Sequence[str], results: Path, folder: Path, limit: float, environment: Mapping[str, str]
) -> str:
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in environment.items())
    return _INIT.format(
        modules=MODULES,
        results=shlex.quote(str(results)),
        folder=shlex.quote(str(folder)),
        environment=exports,
        limit=limit,
        command=shlex.join(command),
    )


def run(
    command: Sequence[str],
    results: Path,
    *,
    folder: Path,
    limit: float = 120.0,
    memory: str = "512M",
    environment: Mapping[str, str] | None = None,
    cache: Path | None = None,
) -> UmlResult:
    """Boot, run a command with `folder` as working directory, power off. Status 124 means that it ran past `limit`.

    Raises UmlError where the kernel did not boot or finish.
    """
    results.mkdir(parents=True, exist_ok=True)
    for name in ("status", "status.new", "output"):
        (results / name).unlink(missing_ok=True)
    init = results / "init"
    init.write_text(_init_text(command, results, folder, limit, environment or {}))
    init.chmod(0o755)
    console = results / "console"
    wrapper = shim(cache or default_cache())
    surroundings = {**os.environ, **({"LD_PRELOAD": str(wrapper)} if wrapper else {})}
    with tempfile.TemporaryDirectory(prefix="uml-") as uml_dir, console.open("wb") as stream:
        argv = [KERNEL, f"mem={memory}", "rootfstype=hostfs", "ro", f"init={init}", f"uml_dir={uml_dir}"]
        argv += ["con=null", "ssl=null", "con0=null,fd:1", "quiet"]
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=surroundings,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
        )
        try:
            process.wait(limit + _GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            pass  # wedged; told below by the missing status
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
    output = (results / "output").read_text(errors="replace") if (results / "output").exists() else ""
    try:
        return UmlResult(int((results / "status").read_text()), output)
    except (FileNotFoundError, ValueError) as error:
        tail = "".join(console.read_text(errors="replace").splitlines(keepends=True)[-25:])
        raise UmlError(f"user-mode Linux ended without a result; output:\n{output}\nconsole:\n{tail}") from error
