"""One local cluster: what it consists of, and starting, resuming, stopping and removing it.

Every step looks at what is there and does the rest, so `start` after a crash at any point ends in the same state.
A running process is kept while its command line and its input files are what they should be, else replaced.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from nodewright import __version__
from nodewright.controlplane import certificates, configs, flags, slots, state
from nodewright.controlplane.certificates import Certificates
from nodewright.controlplane.endpoint import Endpoint, wait_ready
from nodewright.controlplane.errors import ControlPlaneError, PreconditionError
from nodewright.controlplane.files import locked, make_dir
from nodewright.controlplane.layout import Layout
from nodewright.controlplane.processes import Component
from nodewright.controlplane.state import LOOPBACK, ClusterState

ETCD = "etcd"
APISERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
OPERATOR = "operator"
SCHEDULER = "scheduler"
# Stopped in this order: first those that write, the store last.
STOP_ORDER = (OPERATOR, SCHEDULER, CONTROLLER_MANAGER, APISERVER, ETCD)
_HEALTH_PATHS = {
    ETCD: "/health",
    APISERVER: "/readyz?verbose",
    CONTROLLER_MANAGER: "/healthz",
    OPERATOR: "/readyz",
    SCHEDULER: "/readyz",
}
_START_TIMEOUT = 90.0  # seconds; kube-apiserver takes 4 on two idle cores

Update = Callable[[str], None]


def _silent(_text: str) -> None:
    pass


class LocalCluster:
    """A cluster below a state root. Get one by `ensure` (create or load) or `load` (must exist)."""

    def __init__(self, layout: Layout, cluster_state: ClusterState) -> None:
        self.layout = layout
        self.state = cluster_state

    # -- existence ---------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, layout: Layout) -> LocalCluster:
        """The existing cluster; PreconditionError when there is none."""
        return cls(layout, state.require(layout))

    @classmethod
    def ensure(cls, layout: Layout, nodes: int | None = None) -> LocalCluster:
        """Load the cluster or create it. `nodes` changes the number of node hosts; None keeps it (0 at first)."""
        found = state.load(layout)
        if found is None:
            make_dir(layout.dir)
            with locked(layout.dir.parent / ".slots.lock"):  # two new clusters must not take the same slot
                others = state.slots_taken(layout.root, layout.name)
                routes = [network for _, network in slots.host_routes()]
                found = state.create(layout.name, slots.check_nodes(nodes or 0), taken=others, routes=routes)
                state.save(layout, found)
        elif nodes is not None and nodes != found.nodes:
            found = state.with_nodes(found, slots.check_nodes(nodes))
            state.save(layout, found)
        return cls(layout, found)

    def lock(self, waiting: Callable[[], None] | None = None) -> AbstractContextManager[None]:
        """Keep other commands from changing this cluster meanwhile."""
        return lock(self.layout, waiting)

    # -- what it is --------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.layout.name

    @property
    def dir(self) -> Path:
        """The cluster's directory."""
        return self.layout.dir

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.layout.kubeconfig("admin")

    @property
    def server(self) -> str:
        """kube-apiserver's URL."""
        return self.state.server

    def component(self, name: str) -> Component:
        """The component `name`, running or not."""
        return component(self.layout, name)

    def components(self) -> list[str]:
        """Names of all components that have a record, in the order in which they are stopped."""
        return recorded_components(self.layout)

    def endpoint(self, name: str) -> Endpoint:
        """How to ask the control-plane process `name` for its health."""
        ports, pki = self.state.ports, self.layout.pki
        admin = certificates.Certificates(self.layout, self.state).pair("user-admin")
        cluster_ca = pki / f"{certificates.CLUSTER_CA}.crt"
        if name == ETCD:
            client = certificates.Certificates(self.layout, self.state).pair("apiserver-etcd-client")
            return Endpoint(LOOPBACK, ports.etcd_client, pki / f"{certificates.ETCD_CA}.crt", client)
        if name == APISERVER:
            return Endpoint(self.state.address, ports.apiserver, cluster_ca, admin)
        if name == CONTROLLER_MANAGER:
            return Endpoint(LOOPBACK, ports.controller_manager, cluster_ca)
        return Endpoint(LOOPBACK, {OPERATOR: ports.operator, SCHEDULER: ports.scheduler}[name])

    def health(self, name: str) -> str | None:
        """None when the component `name` (one of `STOP_ORDER`) is healthy, else the problem in one line."""
        return self.endpoint(name).problem(_HEALTH_PATHS[name])

    # -- starting ----------------------------------------------------------------------------------------------

    def prepare(self) -> set[str]:
        """Keys, certificates, kubeconfigs and configuration files; returns the certificates that were made."""
        made = Certificates(self.layout, self.state).ensure()
        configs.ensure(self.layout)
        return made

    def prepare_nodes(self) -> set[str]:
        """Certificates and kubeconfigs of the node hosts; returns the certificates that were made."""
        return Certificates(self.layout, self.state).ensure_nodes(self.state.node_hosts())

    def start_etcd(self, binary: Path, *, update: Update = _silent, unsafe_no_fsync: bool = False) -> bool:
        """Start or keep etcd; True when it was started. `unsafe_no_fsync` is for tests: a power cut loses data."""
        make_dir(self.layout.etcd, 0o700)
        argv = [str(binary), *flags.etcd(self.layout, self.state, unsafe_no_fsync=unsafe_no_fsync)]
        names = (certificates.ETCD_CA, "etcd-server", "etcd-peer")
        inputs = [self.layout.pki / f"{name}.crt" for name in names]
        ports = [(LOOPBACK, self.state.ports.etcd_client), (LOOPBACK, self.state.ports.etcd_peer)]
        return self._start_probed(ETCD, argv, inputs, ports, update)

    def start_apiserver(self, binary: Path, *, update: Update = _silent) -> bool:
        """Start or keep kube-apiserver; True when it was started."""
        argv = [str(binary), *flags.kube_apiserver(self.layout, self.state)]
        # every file that a flag names is an input: certificates, keys, configuration
        inputs = [Path(value) for arg in argv[1:] if (value := arg.partition("=")[2]).startswith(str(self.dir))]
        inputs.remove(self.layout.audit_log)
        return self._start_probed(APISERVER, argv, inputs, [(self.state.address, self.state.ports.apiserver)], update)

    def start_controller_manager(self, binary: Path, *, replaced: Sequence[str] = (), update: Update = _silent) -> bool:
        """Start or keep kube-controller-manager without the controllers in `replaced`; True when it was started."""
        argv = [str(binary), *flags.kube_controller_manager(self.layout, self.state, replaced)]
        inputs = [Path(value) for arg in argv[1:] if (value := arg.partition("=")[2]).startswith(str(self.dir))]
        ports = [(LOOPBACK, self.state.ports.controller_manager)]
        return self._start_probed(CONTROLLER_MANAGER, argv, inputs, ports, update)

    def start_own(
        self, name: str, arguments: Sequence[str], *, inputs: Iterable[Path] = (), prefix: Sequence[str] = ()
    ) -> bool:
        """Start or keep one of our own processes, `nodewright ARGUMENTS`; True when it was started.

        `prefix` is what to run it under, e.g. the command that enters a node host.
        """
        argv = [*prefix, sys.executable, "-m", "nodewright.cli.main", *arguments]
        fingerprint = _fingerprint(inputs, __version__)
        part = self.component(name)
        running = part.running()
        if running is not None and running.argv == argv and running.fingerprint == fingerprint:
            return False
        part.stop()
        part.start(argv, env=child_environment(proxies=True), fingerprint=fingerprint)
        return True

    def wait_healthy(self, name: str, *, update: Update = _silent) -> None:
        """Wait until the running component `name` is healthy; raises when it ends first or takes too long."""
        part = self.component(name)
        record = part.record()
        if record is None:
            raise ControlPlaneError(f"{name} was not started")
        wait_ready(part, record, lambda: self.health(name), timeout=_START_TIMEOUT, update=update)

    def _start_probed(
        self, name: str, argv: list[str], inputs: Iterable[Path], ports: Iterable[tuple[str, int]], update: Update
    ) -> bool:
        part = self.component(name)
        fingerprint = _fingerprint([Path(argv[0]), *inputs], "")
        record = part.running()
        started = record is None or record.argv != argv or record.fingerprint != fingerprint
        if record is None or started:
            part.stop()
            self._require_free(name, ports)
            part.start(argv, env=child_environment(proxies=False), fingerprint=fingerprint)
        self.wait_healthy(name, update=update)
        return started

    def _require_free(self, name: str, ports: Iterable[tuple[str, int]]) -> None:
        for address, port in ports:
            if not state.port_is_free(address, port):
                raise PreconditionError(
                    f"port {port} on {address}, which {name} needs, is in use by another program",
                    f"find it with `ss -ltnp 'sport = :{port}'` and stop it; the port is recorded in "
                    f"{self.layout.state_file}",
                )

    # -- ending ------------------------------------------------------------------------------------------------

    def stop(self, update: Update = _silent) -> list[str]:
        """Stop every component, those that write first; returns the names of those that ran."""
        return stop(self.layout, update)


def lock(layout: Layout, waiting: Callable[[], None] | None = None) -> AbstractContextManager[None]:
    """Keep other commands from changing the cluster meanwhile."""
    make_dir(layout.lock_file.parent)
    return locked(layout.lock_file, waiting)


def component(layout: Layout, name: str) -> Component:
    """The component `name` of the cluster at `layout`."""
    return Component(name, layout.run / f"{name}.json", layout.log(name))


def recorded_components(layout: Layout) -> list[str]:
    """Names of the components that have a record: agents first, then in `STOP_ORDER`."""
    names = {path.stem for path in layout.run.glob("*.json")}
    return sorted(names, key=lambda name: (STOP_ORDER.index(name) if name in STOP_ORDER else -1, name))


def stop(layout: Layout, update: Update = _silent) -> list[str]:
    """Stop what is recorded, also where cluster.json is damaged; returns the names of those that ran.

    The store goes last and the API server before it; all others are told at once and waited for together.
    """
    names = recorded_components(layout)
    last = [name for name in (APISERVER, ETCD) if name in names]
    stopped = set()
    for group in [[name for name in names if name not in last], *([name] for name in last)]:
        update(", ".join(group))
        with ThreadPoolExecutor(max_workers=max(1, len(group))) as pool:
            ran = pool.map(lambda name: component(layout, name).stop(), group)
            stopped |= {name for name, did in zip(group, ran, strict=True) if did}
    return [name for name in names if name in stopped]


def remove_data(layout: Layout) -> None:
    """Remove the cluster's directory. Nothing of the cluster may run, and nothing may be mounted below it."""
    running = [name for name in recorded_components(layout) if component(layout, name).running()]
    if running:
        raise ControlPlaneError(f"{', '.join(running)} still runs", "stop the cluster first")
    if mounts := mounts_below(layout.dir):
        raise ControlPlaneError(
            f"{mounts[0]} is still mounted: removing the data could remove a volume's content",
            "unmount what is listed by `findmnt` below the cluster's directory",
        )
    # cluster.json goes last: a purge that was killed midway is seen as an existing cluster and can be repeated
    for entry in layout.dir.iterdir() if layout.dir.exists() else ():
        if entry != layout.state_file:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    layout.state_file.unlink(missing_ok=True)
    if layout.dir.exists():
        layout.dir.rmdir()
    layout.lock_file.unlink(missing_ok=True)


def mounts_below(directory: Path) -> list[str]:
    """Mount points of this mount namespace below `directory`."""
    prefix = f"{directory.resolve()}".rstrip("/") + "/"
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(prefix)]


def child_environment(*, proxies: bool) -> dict[str, str]:
    """The environment of components. Proxies are for pulling images, never for talking to our own servers."""
    if proxies:
        return dict(os.environ)
    return {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}


def _fingerprint(inputs: Iterable[Path], extra: str) -> str:
    """Changes when a file that the process reads at start changes; big files (binaries) count by size and time."""
    digest = hashlib.sha256(extra.encode())
    for path in sorted(set(inputs)):
        if not path.is_file():
            continue
        info = path.stat()
        content = path.read_bytes() if info.st_size < 1 << 20 else f"{info.st_size} {info.st_mtime_ns}".encode()
        digest.update(f"{path}\0".encode() + content + b"\0")
    return digest.hexdigest()[:16]
