"""What the agent tells the runtime and what it gets back. Everything here is written to disk as JSON."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Any

import msgspec

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
MAX_ID = 2**31 - 1
"""Largest uid and gid accepted: above it runtimes have wrapped to 0 (CVE-2024-40635)."""


class Mount(msgspec.Struct, frozen=True, omit_defaults=True):
    """A mount in the container, in the words of the OCI runtime specification."""

    source: str
    destination: str
    type: str = "bind"
    options: list[str] = []
    shifted: bool = False
    """In a pod with a user namespace: its files have been made to belong to it, and are mounted as they are."""


class Device(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A device node in the container: a block device unless ``kind`` is ``c``; what the cgroup allows of rwm."""

    path: str
    major: int
    minor: int
    kind: str = "b"
    mode: int = 0o660
    uid: int = 0
    gid: int = 0
    access: str = "rwm"
    source: str = ""
    """Where it is on the host, for runtimes that are told paths."""


class Resources(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Limits of one container: shares, microseconds, bytes, processes. None: not set; a quota of -1: no limit.

    ``hugepages``: bytes by page size as the kernel spells it (``2MB``).
    """

    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    memory_limit: int | None = None
    pids_limit: int | None = None
    hugepages: dict[str, int] = {}

    def changed(self, wanted: Resources) -> Resources:
        """These with what ``wanted`` sets."""
        given = {name: value for name, value in msgspec.structs.asdict(wanted).items() if value or value == 0}
        return msgspec.structs.replace(self, **given)


class User(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who the process runs as.

    ``uid`` None: what the image says in ``image_user`` (``name``, ``uid``, ``name:group``...; empty is root), looked up
    in the image's own /etc/passwd and /etc/group. ``gid`` None: the user's primary group, 0 for an unknown user.
    ``merge_groups``: add the groups that the image's /etc/group gives the user (supplementalGroupsPolicy Merge).
    """

    uid: int | None = None
    gid: int | None = None
    additional_gids: list[int] = []
    image_user: str = ""
    merge_groups: bool = True


class IdRange(msgspec.Struct, frozen=True):
    """The users and groups of a pod's user namespace: its 0 is the host's ``start``, and so on for ``length`` ids."""

    start: int
    length: int


class ContainerSpec(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One container, complete: nothing else is needed to start it or to recognise it later."""

    id: str
    pod_uid: str
    pod_name: str
    pod_namespace: str
    name: str
    attempt: int = 0

    lowers: list[str]
    """Directories of the image's layers, top first."""
    argv: list[str]
    env: list[str] = []
    cwd: str = "/"
    user: User = User()
    hostname: str = ""
    """For the HOSTNAME variable; the UTS namespace's own name is the sandbox's."""

    netns: str | None = None
    """Path of the network namespace; None: the host's."""
    ipc_ns: str | None = None
    uts_ns: str | None = None
    pid_ns: str | None = None
    """Path; ``host``; None: a pid namespace of its own."""
    user_ns: str | None = None
    """Path of the pod's user namespace; None: the host's. The other namespaces must be owned by it."""
    ids: IdRange | None = None
    """What ``user_ns`` maps."""

    mounts: list[Mount] = []
    image_volumes: list[str] = []
    """Directories of the root file system that stay writable where it is not."""
    devices: list[Device] = []
    resources: Resources = Resources()
    """What its cgroup has now: ``Runtime.update`` changes the record with the cgroup."""
    oom_score_adj: int = 0
    oom_group: bool = True
    """cgroup v2: a container that is out of memory dies as a whole (singleProcessOOMKill false)."""
    runtime: str = ""
    """The OCI runtime's program; empty: the node's own."""
    capabilities: list[str] | None = None
    """Complete list (``CAP_...``); None: the default set."""
    privileged: bool = False
    read_only_rootfs: bool = False
    no_new_privileges: bool = False
    seccomp: dict[str, Any] | None = None
    """An OCI seccomp object; None: unconfined. ``seccomp.default_profile`` makes the runtime's default."""
    app_armor: str = ""
    """Name of the profile; empty: none is set."""
    masked_paths: list[str] | None = None
    """None: the defaults."""
    read_only_paths: list[str] | None = None

    log_path: str
    termination_log: str = ""
    """File on the host that is bound at ``termination_message_path``; empty: none."""
    termination_message_path: str = "/dev/termination-log"
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    stop_signal: str = ""
    cgroup_parent: str
    """The pod's cgroup; the container's own is ``cgroup_parent/id``."""
    labels: dict[str, str] = {}
    """Kept in the record, for the agent; never given to the OCI runtime (annotations can order it about)."""


class Phase(StrEnum):
    """Where a container is; the record on disk has it."""

    CREATING = "creating"
    CREATED = "created"
    RUNNING = "running"
    """Written before the process is let go: on disk it means "let go, or about to be"."""
    EXITED = "exited"


class ExitInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a container ended. ``code`` is what Kubernetes reports: 128+N for signal N."""

    code: int
    signal: int = 0
    oom_killed: bool = False
    finished_at: float = 0.0
    """Unix time in seconds."""
    reason: str = ""
    """Set where the code is not the process's own: ``MonitorLost`` (137), ``HostRestarted`` (255)."""


class ContainerState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The changing half of a record."""

    phase: Phase = Phase.CREATING
    boot_id: str = ""
    run_id: str = ""
    """Which run directory it was made in (``Store.run_id``); empty in records of older versions: unknown."""
    pid: int = 0
    monitor_pid: int = 0
    uid: int = 0
    gid: int = 0
    additional_gids: list[int] = []
    created_at: float = 0.0
    started_at: float = 0.0
    exit: ExitInfo | None = None


class ContainerRecord(msgspec.Struct, kw_only=True):
    """A container as ``Runtime.list`` gives it: its spec as created, and its state."""

    spec: ContainerSpec
    state: ContainerState

    @property
    def id(self) -> str:
        """The container's id."""
        return self.spec.id

    @property
    def running(self) -> bool:
        """Whether its process has been started and has not ended."""
        return self.state.phase is Phase.RUNNING

    @property
    def exit(self) -> ExitInfo | None:
        """How it ended; None while it has not."""
        return self.state.exit

    @property
    def cgroup(self) -> str:
        """Its cgroup."""
        return container_cgroup(self.spec)


class ExecResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a command inside a container gave. ``truncated``: there was more output than asked for."""

    code: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False
    timed_out: bool = False


def container_cgroup(spec: ContainerSpec) -> str:
    """The cgroup of the container itself."""
    return f"{spec.cgroup_parent.rstrip('/')}/{spec.id}"


def problems(spec: ContainerSpec) -> list[str]:
    """What is wrong with a spec, each with its field: checked before anything is made on the host."""
    found = []
    if not _ID.fullmatch(spec.id):
        found.append(f"id {spec.id!r}: expected letters, digits, '_', '.', '-', at most 128")
    if not spec.argv:
        found.append("no command specified")
    if not spec.lowers:
        found.append("the image has no layers")
    if not spec.cgroup_parent.startswith("/") or ".." in spec.cgroup_parent.split("/"):
        found.append(f"cgroup_parent {spec.cgroup_parent!r}: expected an absolute path without ..")
    for field, values in (("argv", spec.argv), ("env", spec.env), ("cwd", [spec.cwd])):
        found.extend(f"{field}: NUL byte in {value!r}" for value in values if "\0" in value)
        found.extend(f"{field}: {value!r} is not valid UTF-8" for value in values if not _encodable(value))
    found.extend(f"env: {entry!r} is not NAME=value" for entry in spec.env if entry.find("=") < 1)
    if not spec.cwd.startswith("/"):
        found.append(f"working directory {spec.cwd!r} is not an absolute path")
    found.extend(_mount_problems([*spec.mounts, *(Mount("", path) for path in spec.image_volumes)]))
    if (spec.user_ns is None) != (spec.ids is None):
        found.append("user_ns and ids: give both or none")
    for field, value in (("uid", spec.user.uid), ("gid", spec.user.gid)):
        if value is not None and not 0 <= value <= MAX_ID:
            found.append(f"user.{field} {value}: expected 0 to {MAX_ID}")
    found.extend(
        f"user.additional_gids {gid}: expected 0 to {MAX_ID}"
        for gid in spec.user.additional_gids
        if not 0 <= gid <= MAX_ID
    )
    return found


def _encodable(text: str) -> bool:
    """JSON of an image may have half of a surrogate pair, which no program can be given."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _mount_problems(mounts: list[Mount]) -> list[str]:
    found = []
    for mount in mounts:
        where = mount.destination
        if not where.startswith("/") or where.strip("/") == "" or "\0" in where or ".." in where.split("/"):
            found.append(f"mount path {where!r}: expected an absolute path other than / and without ..")
    return found
