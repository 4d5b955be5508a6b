"""`python -m conformance.critest`: upstream's critest against `nodewright cri`, in namespaces of its own.

Network, mounts, process ids and shared memory are the run's own: it can disturb nothing on this machine, and what it
leaves behind ends with the first process of the namespaces. Only cgroups and files are removed one by one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from conformance import criimages, known, report
from conformance.errors import ConformanceError, Missing
from conformance.oci import BlobStore
from conformance.registry import Registry
from nodewright.controlplane.assetcache import cache_root
from nodewright.controlplane.assets import Assets
from nodewright.controlplane.errors import ControlPlaneError
from nodewright_agent.runtime import cgroups, cleanup

_LIST = Path(__file__).parent / "critest-known-failures.txt"
_POD_CIDR = "10.212.0.0/24"
_PATIENCE = 60.0  # seconds for the server to answer, and to end
# Shared mounts: tests have containers hand mounts on. They end with the namespace.
_NAMESPACES = ("unshare", "--net", "--ipc", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
               "--mount-proc")  # fmt: skip


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; `make critest` fills it from its variables."""
    parser = argparse.ArgumentParser(prog="critest", description="Upstream's critest against `nodewright cri`.")
    parser.add_argument("--focus", action="append", default=[], help="regular expression of test names; default all")
    parser.add_argument("--skip", action="append", default=[], help="regular expression of test names to leave out")
    parser.add_argument("--out", type=Path, default=Path("critest-results"), help="folder for logs and report")
    parser.add_argument("--inside", nargs=3, metavar=("WORK", "STORE", "CRITEST"), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """0: the run is as critest-known-failures.txt says; 1: it is not; 3: this machine lacks something; 130."""
    options = arguments(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended politely: as by Ctrl-C
    try:
        if options.inside:
            work, store, critest = (Path(part) for part in options.inside)
            return _inside(options, work, BlobStore(store), critest)
        listed = known.parse(_LIST.read_text(), _LIST.name)
        return known.tell(report.read(_run(options, argv)), listed, _LIST.name)
    except KeyboardInterrupt:
        return 130
    except (ConformanceError, ControlPlaneError) as error:
        sys.stderr.write(f"error: {error}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return 3 if isinstance(error, Missing) else 1


def _run(options: argparse.Namespace, argv: Sequence[str]) -> Path:
    if os.geteuid() != 0:
        raise Missing("containers need root", "sudo make critest")
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    junit: Path = out / "junit.xml"
    junit.unlink(missing_ok=True)
    _say("programs (the first time they are built, which takes minutes)")
    found = Assets().obtain(("critest", *criimages.BINARIES))
    store = criimages.ensure(cache_root(os.environ).parent / "conformance", found, _say)
    with _workplace() as work:
        inner = [sys.executable, "-m", "conformance.critest", *argv, "--out", str(out)]
        inner += ["--inside", str(work), str(store.root), str(found["critest"])]
        _say(f"tests, log in {out / 'critest.log'}")
        started = time.monotonic()
        code = subprocess.run([*_NAMESPACES, *inner], check=False).returncode
        _say(f"tests ended after {time.monotonic() - started:.0f} seconds with {code}")
    if not junit.exists():
        raise ConformanceError("critest ended without a report", f"its log, and the server's, are in {out}")
    return junit


@contextmanager
def _workplace() -> Iterator[Path]:
    """A folder for all files of the run, whose name is the name of its cgroup too; afterwards both are gone."""
    work = Path(tempfile.mkdtemp(prefix="critest-", dir="/var/tmp"))
    work.chmod(0o711)  # the users of user namespaces have to get through
    try:
        yield work
    finally:
        cleanup.purge(
            run_dir=work / "run", state_dir=work / "root", cgroup_root=f"/{work.name}", cgroups=cgroups.detect()
        )
        shutil.rmtree(work)


def _inside(options: argparse.Namespace, work: Path, store: BlobStore, critest: Path) -> int:
    """What happens in the namespaces; critest's exit code."""
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.umask(0o022)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]  # nothing is outside
    with ExitStack() as stack:
        registries = []
        for domain in criimages.DOMAINS:
            registry = Registry(store, domain, "127.0.0.1")
            stack.callback(registry.close)
            registries.append(f'[registry."{domain}"]\nmirrors = ["{registry.url}"]\n')
        (work / "images").mkdir(mode=0o700)
        (work / "images/registries.toml").write_text("".join(registries))
        socket = stack.enter_context(_server(work, options.out / "server.log"))
        argv = [str(critest), f"-runtime-endpoint=unix://{socket}", f"-ginkgo.junit-report={options.out / 'junit.xml'}"]
        argv += ["-ginkgo.no-color"]
        argv += [f"-ginkgo.focus={pattern}" for pattern in options.focus]
        argv += [f"-ginkgo.skip={pattern}" for pattern in options.skip]
        with (options.out / "critest.log").open("wb") as log:
            return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode


@contextmanager
def _server(work: Path, log: Path) -> Iterator[Path]:
    """`nodewright cri`, once it answers; its socket."""
    socket = work / "cri.sock"
    argv = [sys.executable, "-m", "nodewright.cli.main", "cri", "--socket", f"unix://{socket}"]
    argv += ["--root", str(work / "root"), "--run-dir", str(work / "run"), "--image-root", str(work / "images")]
    argv += ["--cgroup-root", f"/{work.name}", "--pod-cidr", _POD_CIDR]
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + _PATIENCE
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise ConformanceError("nodewright cri does not answer", f"its log: {log}")
            time.sleep(0.05)
        yield socket
    finally:
        process.terminate()
        process.wait(_PATIENCE)


def _say(text: str) -> None:
    sys.stdout.write(f"==> {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
