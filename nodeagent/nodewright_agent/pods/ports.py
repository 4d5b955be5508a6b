"""What the pod workers need from the rest of the agent: narrow protocols, so that tests run the core without root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from nodewright.kube.objects import Container, ObjectReference, Pod, PodStatus
from nodewright_agent.pods.model import Instance


class StartError(Exception):
    """A container could not be started. ``reason`` is kubelet's waiting reason; the text is for the pod's owner.

    ``ran``: the OCI runtime itself failed, which upstream reports as a run that ended with StartError, exit code 128.
    """

    def __init__(self, reason: str, message: str, *, ran: bool = False) -> None:
        """Keep reason and message."""
        super().__init__(message)
        self.reason, self.message, self.ran = reason, message, ran


class ImageProblem(Exception):
    """An image is not to be had. ``reason``: ErrImagePull, ErrImageNeverPull, InvalidImageName, ..."""

    def __init__(self, reason: str, message: str) -> None:
        """Keep reason and message."""
        super().__init__(message)
        self.reason, self.message = reason, message
        self.image = ""
        """Which image, where it is not the container's own."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container's process ended; ``finished_at`` in seconds since the epoch."""

    code: int
    finished_at: float
    oom_killed: bool = False
    unknown: str = ""
    """Set where the code is not the process's own: why nobody knows (``MonitorLost``, ``HostRestarted``)."""


class Operations(Protocol):
    """Everything that a worker does to the host for its pod. Each call can be repeated after a crash."""

    async def create_sandbox(self, pod: Pod) -> tuple[str, ...]:
        """Make cgroup, namespaces, network and files; return the pod's own addresses."""

    async def set_up_volumes(self, pod: Pod) -> None:
        """Make all volumes ready to be mounted."""

    def pod_changed(self, pod: Pod) -> None:
        """Take note of a new version: its labels and annotations may be in files."""

    async def ensure_image(self, pod: Pod, container: Container) -> None:
        """Find or pull the image by the container's policy. Raises ``ImageProblem``."""

    def next_attempt(self, pod: Pod, container: Container) -> int:
        """Return the number of the first run that has left no log yet."""

    async def create_container(self, pod: Pod, container: Container, run: Instance, ips: tuple[str, ...]) -> None:
        """Create the run and note its image in it. Raises ``StartError``."""

    async def start_container(self, pod: Pod, container: Container, run: Instance) -> None:
        """Start the created run. Raises ``StartError``."""

    async def post_start(self, pod: Pod, container: Container, run: Instance) -> None:
        """Run the postStart hook. Raises ``StartError`` (PostStartHookError)."""

    async def pre_stop(self, pod: Pod, container: Container, run: Instance) -> None:
        """Run the preStop hook to its end, however it ends."""

    async def signal(self, pod: Pod, container: Container | None, run: Instance, *, kill: bool) -> None:
        """Send the stop signal, or SIGKILL; nothing happens when the process is gone."""

    def end_message(self, pod: Pod, container: Container | None, run: Instance) -> str:
        """Return the termination message of an ended run."""

    async def remove_container(self, run: Instance) -> None:
        """Remove what an ended run left in the runtime; its log stays."""

    async def resize(self, pod: Pod, runs: list[Instance]) -> None:
        """Give the pod's cgroup and its running runs the pod's resources, and note them in the runs.

        Raises ``ResizeError``.
        """

    async def tear_down(self, pod: Pod, runs: list[Instance]) -> None:
        """Remove runs, network, namespaces, volumes and cgroups of an ended pod; records and logs stay."""

    async def forget(self, pod: Pod, *, keep_logs: bool = False) -> None:
        """Remove the last traces of a pod that the API server no longer has, or all but its logs."""


class StatusSink(Protocol):
    """Where statuses go (the status writer)."""

    def publish(self, pod: Pod, status: PodStatus, *, lazy: bool = False) -> None:
        """Ask for the status to be written; ``lazy``: not before a moment has passed, in case another follows."""

    def observed(self, pod: Pod) -> None:
        """Take note of a version of the pod that the API shows: what others have overwritten is written again."""

    async def flushed(self, uid: str) -> None:
        """Wait until the newest published status is written (or the pod is gone)."""

    async def delete(self, pod: Pod) -> None:
        """Delete the pod from the API for good, once it is over."""

    def forget(self, uid: str) -> None:
        """Drop what is still to be written for a pod that is gone."""


class Events(Protocol):
    """Posts Kubernetes events; never blocks (nodewright.kube.events.EventRecorder)."""

    def event(self, ref: ObjectReference, type: str, reason: str, message: str) -> None:
        """Post one event."""


class Probes(Protocol):
    """Runs the probes of running containers and tells the worker about changed results."""

    def start(self, pod: Pod, container: Container, run: Instance, ips: tuple[str, ...]) -> None:
        """Begin to probe a run."""

    def stop(self, run: Instance, *, readiness: bool = True) -> None:
        """End its probes; with ``readiness=False`` that one goes on, as upstream does while a pod terminates."""

    def forget(self, uid: str) -> None:
        """Drop what was counted for a pod that is gone."""


Clock = Callable[[], float]
__all__ = [
    "Clock",
    "Events",
    "Exit",
    "ImageProblem",
    "Operations",
    "Probes",
    "StartError",
    "StatusSink",
]
