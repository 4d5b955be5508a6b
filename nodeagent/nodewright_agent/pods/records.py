"""What a restarted agent has to know of a pod, on disk: ``<state_dir>/pods/<uid>/pod.json``.

The runtime's own records tell which containers exist; this adds the pod as the API gave it, so that the agent can go
on while the API server is away, and what nobody else remembers: back-offs, runs that were removed, the start time.
A lost or torn file costs no container: the pod is then taken up again from the API and the runtime.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path

import msgspec

from nodewright.kube.objects import Pod
from nodewright_agent.failpoints import failpoint
from nodewright_agent.pods.model import Backoff, Instance, PodState, Step, StepState, Termination
from nodewright_agent.pods.resize.state import ResizeState

log = logging.getLogger(__name__)

FILE = "pod.json"


class PodRecord(msgspec.Struct, omit_defaults=True):
    """One pod's record."""

    pod: Pod
    start_time: float = 0.0
    ips: tuple[str, ...] = ()
    runs: list[Instance] = msgspec.field(default_factory=list)
    backoffs: dict[str, Backoff] = msgspec.field(default_factory=dict)
    restart_all: bool = False
    resize: ResizeState = msgspec.field(default_factory=ResizeState)
    termination: Termination | None = None
    finished: bool = False
    torn_down: bool = False

    @classmethod
    def of(cls, pod: Pod, state: PodState) -> PodRecord:
        """Take what is to be kept."""
        return cls(
            pod=pod,
            start_time=state.start_time,
            ips=state.ips,
            runs=state.all_instances(),
            backoffs=state.backoffs,
            restart_all=state.restart_all,
            resize=state.resize,
            termination=state.termination,
            finished=state.finished,
            torn_down=state.teardown.ready,
        )

    def state(self) -> PodState:
        """Return the state as far as the record tells; the runtime's records complete it."""
        state = PodState(
            start_time=self.start_time,
            ips=self.ips,
            backoffs=self.backoffs,
            restart_all=self.restart_all,
            resize=self.resize,
            termination=self.termination,
            finished=self.finished,
        )
        state.resize.busy = False
        if self.torn_down:
            state.teardown = Step(StepState.READY)
        for run in self.runs:
            run.stop = None
            state.add(run)
        return state


class Records:
    """The directory of all pods of the node; each pod's other files (hosts, volumes) lie beside its record."""

    def __init__(self, root: Path) -> None:
        """Keep records below ``root``."""
        self._root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o750)

    def directory(self, uid: str) -> Path:
        """Return the pod's directory; UIDs that are no file name are refused."""
        if not uid or "/" in uid or uid.startswith("."):
            raise ValueError(f"{uid!r} is no pod UID")
        return self._root / uid

    def save(self, pod: Pod, state: PodState) -> None:
        """Write the record; an error is logged, since a pod shall not fail for it."""
        directory = self.directory(pod.metadata.uid)
        temporary = directory / f".{FILE}"
        try:
            directory.mkdir(exist_ok=True, mode=0o750)
            temporary.write_bytes(msgspec.json.encode(PodRecord.of(pod, state)))
            failpoint("record.written")
            os.replace(temporary, directory / FILE)
            failpoint("record.saved")
        except OSError as error:
            log.error("cannot write the record of a pod: %s", error, extra={"pod": pod.key})

    def load(self) -> dict[str, PodRecord]:
        """Read all records by UID; one that cannot be read is left out and told."""
        found: dict[str, PodRecord] = {}
        for path in self._root.glob(f"*/{FILE}"):
            try:
                record = msgspec.json.decode(path.read_bytes(), type=PodRecord)
            except (OSError, msgspec.MsgspecError) as error:
                log.warning("record %s is of no use: %s", path, error)
                continue
            if record.pod.metadata.uid == path.parent.name:
                found[path.parent.name] = record
        return found

    def uids(self) -> set[str]:
        """Return the UIDs of all pods that have a directory."""
        return {entry.name for entry in self._root.iterdir() if entry.is_dir()}

    def remove(self, uid: str) -> None:
        """Remove the pod's directory. Volumes are unmounted before; a mount that is left makes this fail loudly."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.directory(uid))
