"""Where a local cluster keeps what: the only place that knows file names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nodewright.controlplane.slots import check_name


def state_root(explicit: Path | None = None) -> Path:
    """The directory of all local clusters: `--state-dir`, $NODEWRIGHT_STATE_DIR, else the system's or user's own."""
    if explicit is not None:
        return explicit.expanduser().absolute()
    if named := os.environ.get("NODEWRIGHT_STATE_DIR"):
        return Path(named).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/nodewright")
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "nodewright"


@dataclass(frozen=True)
class Layout:
    """The paths of cluster `name` below the state root `root`."""

    root: Path
    name: str

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def dir(self) -> Path:
        """Everything of this cluster."""
        return self.root / "clusters" / self.name

    @property
    def state_file(self) -> Path:
        """Slot, ports, ranges and versions; its existence means that the cluster exists."""
        return self.dir / "cluster.json"

    @property
    def lock_file(self) -> Path:
        """Held while a command changes the cluster."""
        return self.root / "clusters" / f".{self.name}.lock"

    @property
    def pki(self) -> Path:
        """Keys and certificates, the encryption configuration included."""
        return self.dir / "pki"

    @property
    def etcd(self) -> Path:
        """etcd's data directory."""
        return self.dir / "etcd"

    @property
    def config(self) -> Path:
        """Configuration files that are not secret."""
        return self.dir / "config"

    @property
    def audit_log(self) -> Path:
        """kube-apiserver's audit log."""
        return self.dir / "audit" / "audit.log"

    @property
    def images(self) -> Path:
        """Image store that the local node hosts share."""
        return self.dir / "images"

    @property
    def run(self) -> Path:
        """Process records."""
        return self.dir / "run"

    @property
    def runtime_dir(self) -> Path:
        """Short-lived state of node hosts, gone after a reboot (root only)."""
        return Path("/run/nodewright") / self.name

    @property
    def cgroup_root(self) -> str:
        """Parent of the node hosts' cgroup subtrees."""
        return f"/nodewright/{self.name}"

    def kubeconfig(self, user: str) -> Path:
        """The kubeconfig of `user`: admin, controller-manager, scheduler, operator or node-<name>."""
        return self.dir / "kubeconfigs" / f"{user}.conf"

    def log(self, component: str) -> Path:
        """Where `component` writes its standard output and error."""
        return self.dir / "logs" / f"{component}.log"

    def node(self, node: str) -> Path:
        """State directory of the agent of `node`."""
        return self.dir / "nodes" / node


def clusters(root: Path) -> list[str]:
    """Names of the clusters below `root`, complete or not, sorted."""
    try:
        return sorted(entry.name for entry in (root / "clusters").iterdir() if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
