"""`python -m conformance`: programs, images, registry, cluster, tests, report, and everything gone again."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from conformance import cluster, dns, images, known, report, suite
from conformance.errors import ConformanceError, Missing
from conformance.registry import Registry
from nodewright.controlplane.assetcache import cache_root
from nodewright.controlplane.assets import Assets
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.errors import ControlPlaneError
from nodewright.controlplane.slots import SERVICE_CIDR

DNS_ADDRESS = str(SERVICE_CIDR[10])
_PROGRAMS = ("ginkgo", "e2e.test", "kubectl")
_NODES = 2  # the suite refuses fewer
_LIST = Path(__file__).parent / "known-failures.txt"


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line; `make conformance` fills it from its variables."""
    parser = argparse.ArgumentParser(prog="conformance", description="Upstream's e2e.test against an embedded cluster.")
    parser.add_argument("--focus", action="append", help=r"regular expression of test names; default \[Conformance\]")
    parser.add_argument("--skip", action="append", default=[], help="regular expression of test names to leave out")
    parser.add_argument("--procs", type=int, default=2, help="tests at a time")
    parser.add_argument("--cluster", default="conformance", help="name of the cluster")
    parser.add_argument("--out", type=Path, default=Path("conformance-results"), help="folder for log and report")
    parser.add_argument("--keep", action="store_true", help="leave the cluster and its registry up until interrupted")
    parser.add_argument("--junit", type=Path, help="only tell what this report of an earlier run says")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """0: the run is as known-failures.txt says; 1: it is not; 3: this machine lacks something; 130: interrupted."""
    options = arguments(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended politely: as by Ctrl-C
    try:
        listed = known.parse(_LIST.read_text(), _LIST.name)
        junit: Path = options.junit or _run(options)
        return known.tell(report.read(junit), listed, _LIST.name)
    except KeyboardInterrupt:
        _say("interrupted")
        return 130
    except (ConformanceError, ControlPlaneError) as error:
        sys.stderr.write(f"error: {error}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return 3 if isinstance(error, Missing) else 1


def _run(options: argparse.Namespace) -> Path:
    if os.geteuid() != 0:
        raise Missing("node hosts need root", "sudo make conformance")
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    junit: Path = out / suite.JUNIT
    junit.unlink(missing_ok=True)
    _say("programs (the first time they are built, which takes many minutes)")
    found = Assets().obtain((*_PROGRAMS, *images.BINARIES))
    cache = cache_root(os.environ).parent / "conformance"
    store = images.ensure(cache, found, _say)
    selection = suite.Selection(tuple(options.focus or suite.Selection.focus), tuple(options.skip), options.procs)
    programs = suite.Programs(found["ginkgo"], found["e2e.test"], found["kubectl"])
    with ExitStack() as stack:
        made = stack.enter_context(_cluster(options.cluster))
        registry = Registry(store, images.DOMAIN, made.state.ranges.gateway)
        stack.callback(registry.close)
        cluster.configure_images(made, registry.url)
        _say("cluster")
        cluster.start(made)
        _say("cluster DNS")
        cluster.install_dns(made, dns.manifest(DNS_ADDRESS))
        started = time.monotonic()
        _say(f"tests, log in {out / 'e2e.log'}")
        code = suite.run(suite.command(programs, selection, made.kubeconfig, out, _NODES), out / "e2e.log")
        _say(f"tests ended after {(time.monotonic() - started) / 60:.0f} minutes with {code}")
        if options.keep:
            _keep(made)
    if not junit.exists():
        raise ConformanceError("the suite ended without a report", f"its log: {out / 'e2e.log'}")
    return junit


@contextmanager
def _cluster(name: str) -> Iterator[LocalCluster]:
    made = cluster.prepare(name, _NODES)
    try:
        yield made
    finally:
        # a second Ctrl-C must not leave half a cluster behind
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        _say("removing the cluster")
        cluster.remove(name)
        signal.signal(signal.SIGINT, before)


def _keep(made: LocalCluster) -> None:
    _say(f"the cluster stays until this is interrupted: export KUBECONFIG={made.kubeconfig}")
    try:
        signal.pause()
    except KeyboardInterrupt:
        pass


def _say(text: str) -> None:
    sys.stdout.write(f"==> {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
