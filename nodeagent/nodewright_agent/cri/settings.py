"""What the server is told at start, and where it keeps what. Pure."""

from __future__ import annotations

from pathlib import Path

import msgspec

from nodewright_agent.cri.errors import Invalid

LONGEST_RUN_DIR = 48
"""Characters: addresses of sockets below it are limited to 107."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """``socket`` a path; ``root`` on disk, ``run_dir`` lost at reboot, ``image_root`` the image store."""

    socket: Path
    root: Path = Path("/var/lib/nodewright/cri")
    run_dir: Path = Path("/run/nodewright/cri")
    image_root: Path = Path("/var/lib/nodewright/images")
    cgroup_root: str = "/nodewright-cri"
    """Monitors go below it, and sandboxes whose caller names no cgroup_parent."""
    pod_cidr: str = ""
    """Addresses of pods; empty until UpdateRuntimeConfig says."""
    runc: str = "runc"
    conmon: str = "conmon"
    handlers: dict[str, str] = {}
    """OCI runtimes by handler name, beside the default one (``""``)."""
    stream_address: str = "127.0.0.1"
    """Where the streaming server listens."""
    stream_port: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for a run_dir in which the monitors' sockets would have too long a path."""
        if len(str(self.run_dir)) > LONGEST_RUN_DIR:
            raise ValueError(f"run_dir {self.run_dir} is longer than {LONGEST_RUN_DIR} characters")

    def program(self, handler: str) -> str:
        """The OCI runtime of a handler; empty: the default one. Raises Invalid."""
        if handler and handler not in self.handlers:
            raise Invalid(f'no runtime for "{handler}" is configured')
        return self.handlers.get(handler, "")


def socket_path(endpoint: str) -> Path:
    """``unix:///run/x.sock`` or a path -> the path. Raises ValueError."""
    path = endpoint.removeprefix("unix://")
    if not path.startswith("/"):
        raise ValueError(f"{endpoint!r} is not unix:///PATH")
    return Path(path)
