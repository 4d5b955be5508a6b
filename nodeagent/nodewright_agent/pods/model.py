"""What the agent knows of one pod: the facts on which the pure core decides. Times are seconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from nodewright.kube.objects import Container, ContainerUser, Pod, ResourceRequirements
from nodewright_agent.pods.resize.state import ResizeState

RESTART_ALWAYS, RESTART_ON_FAILURE, RESTART_NEVER = "Always", "OnFailure", "Never"


class StepState(Enum):
    """Progress of a step that a pod needs once."""

    NONE = "none"
    BUSY = "busy"
    READY = "ready"
    FAILED = "failed"


@dataclass(slots=True)
class Step:
    """A step (sandbox, volumes, tear-down) with the reason and next try of its last failure."""

    state: StepState = StepState.NONE
    message: str = ""
    retry_at: float = 0.0

    def due(self, now: float) -> bool:
        """Tell whether the step has to be started now."""
        return self.state is StepState.NONE or (self.state is StepState.FAILED and now >= self.retry_at)

    @property
    def ready(self) -> bool:
        """The step has succeeded."""
        return self.state is StepState.READY


@dataclass(slots=True)
class ImageStep(Step):
    """The image of a container's next start; ``reason`` is one of kubelet's waiting reasons when it failed."""

    reason: str = ""
    failed_at: float = 0.0
    image: str = ""
    """What the pod called it when the step was taken: the image of a pod's container may be changed."""
    lacking: str = ""
    """What could not be had, where it is the image of a volume."""


@dataclass(slots=True)
class Stop:
    """A container that is being stopped: until when it may go on, and how far we are."""

    deadline: float
    least: float = 2.0
    """Seconds that it has after its stop signal, whatever was used up before."""
    floor: float = 0.0
    """Not killed before this time, so that a container signalled late still has its moment."""
    hook: bool = False
    """Its preStop hook is under way: the stop signal waits for it."""
    term_sent: bool = False
    kill_sent: bool = False


@dataclass(slots=True)
class Instance:
    """One run (attempt) of a container."""

    id: str
    name: str
    attempt: int
    state: Literal["created", "running", "exited"] = "created"
    image: str = ""
    image_id: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    stop_signal: str = "SIGTERM"
    post_start_done: bool = True
    stop: Stop | None = None
    startup: bool | None = None
    """Result of the startup probe; None: no result yet."""
    readiness: bool | None = None
    liveness: bool | None = None
    stale: bool = False
    """It ran in a sandbox that is gone (the node was rebooted)."""
    reset: bool = False
    """All containers were restarted after it (RestartAllContainers): for what is to come it has never run."""
    recursive: list[str] = field(default_factory=list)
    """Mount paths that are read-only with all that is mounted below."""
    volume_images: dict[str, str] = field(default_factory=dict)
    """What its image volumes show, by volume."""
    user: ContainerUser | None = None
    """The identity of its first process."""
    resources: ResourceRequirements | None = None
    """What its cgroup has; None: made by an older agent, which gave what the pod's record says."""
    restart: bool = False
    """It was stopped to be started again, whatever its restart policy says."""

    @property
    def running(self) -> bool:
        """The process exists, or may exist."""
        return self.state != "exited"


@dataclass(slots=True)
class Failure:
    """Why the last try to start a container failed before it ran."""

    reason: str
    message: str
    at: float
    retry_at: float = 0.0


@dataclass(slots=True)
class Backoff:
    """Delay between restarts of one container (client-go's flowcontrol.Backoff)."""

    delay: float
    updated_at: float


@dataclass(slots=True)
class Termination:
    """The pod has to stop: why, until when, and what its phase shall be (empty: by exit codes)."""

    started_at: float
    deadline: float
    reason: str = ""
    message: str = ""
    phase: str = ""
    refused: bool = False
    """The node did not admit the pod: there is nothing to tell of its containers."""
    disruption: str = ""
    """Message of the condition DisruptionTarget (reason TerminationByKubelet); empty: the pod ends for its own."""


@dataclass(slots=True)
class PodState:
    """Everything known of one pod, mutated by its worker only."""

    sandbox: Step = field(default_factory=Step)
    volumes: Step = field(default_factory=Step)
    teardown: Step = field(default_factory=Step)
    ips: tuple[str, ...] = ()
    start_time: float = 0.0
    images: dict[str, ImageStep] = field(default_factory=dict)
    instances: dict[str, list[Instance]] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    """Names of containers whose start or stop signal is under way."""
    failures: dict[str, Failure] = field(default_factory=dict)
    backoffs: dict[str, Backoff] = field(default_factory=dict)
    restart_all: bool = False
    """All containers are being ended, to start again from the first init container (KEP-5532)."""
    resize: ResizeState = field(default_factory=ResizeState)
    termination: Termination | None = None
    finished: bool = False
    """All containers have stopped for good: the phase is terminal."""

    def latest(self, name: str) -> Instance | None:
        """Return the newest run of a container."""
        runs = self.instances.get(name)
        return runs[-1] if runs else None

    def previous(self, name: str) -> Instance | None:
        """Return the run before the newest."""
        runs = self.instances.get(name)
        return runs[-2] if runs and len(runs) > 1 else None

    def add(self, instance: Instance) -> list[Instance]:
        """Record a new run; return older runs that are no longer kept (two are)."""
        runs = self.instances.setdefault(instance.name, [])
        runs.append(instance)
        dropped, runs[:] = runs[:-2], runs[-2:]
        return dropped

    def all_instances(self) -> list[Instance]:
        """Return every kept run."""
        return [instance for runs in self.instances.values() for instance in runs]


def is_sidecar(container: Container) -> bool:
    """Tell whether an init container goes on beside the main ones (restartPolicy Always)."""
    return container.restart_policy == RESTART_ALWAYS


def all_containers(pod: Pod) -> list[Container]:
    """Return init, main and ephemeral containers, in this order."""
    return [*pod.spec.init_containers, *pod.spec.containers, *pod.spec.ephemeral_containers]


def find_container(pod: Pod, name: str) -> Container | None:
    """Return the container of that name, of any sort."""
    return next((container for container in all_containers(pod) if container.name == name), None)


def display_name(pod: Pod) -> str:
    """Return ``name_namespace(uid)``, as kubelet writes pods in its messages."""
    return f"{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})"


def end_reason(code: int, oom_killed: bool, unknown: str) -> str:
    """Return the reason of a terminated state; a lost monitor or a reboot means that nobody knows how it ended."""
    if unknown:
        return "Unknown" if unknown == "HostRestarted" else "ContainerStatusUnknown"
    if oom_killed:
        return "OOMKilled"
    return "Completed" if code == 0 else "Error"
