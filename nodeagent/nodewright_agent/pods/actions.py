"""What the state machine may ask of the shell. Each action is idempotent and reports back into ``PodState``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CreateSandbox:
    """Make the pod's cgroup, namespaces, network and files."""


@dataclass(frozen=True, slots=True)
class SetUpVolumes:
    """Make the pod's volumes ready to be mounted."""


@dataclass(frozen=True, slots=True)
class EnsureImage:
    """Find or pull the image for the next start of a container."""

    container: str


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Create and start a new run of a container."""

    container: str


@dataclass(frozen=True, slots=True)
class StopContainer:
    """Begin to stop a container: tell it, and run its preStop hook; ``grace`` in seconds. The rest follows."""

    id: str
    container: str
    grace: float
    message: str
    restart: bool = False
    """It is started again afterwards, whatever its restart policy says."""
    whole: float | None = None
    """The pod's grace, of which ``grace`` is left; None: it is the container's own."""


@dataclass(frozen=True, slots=True)
class EndHook:
    """The grace is over while the preStop hook still runs: give it up."""

    id: str
    container: str


@dataclass(frozen=True, slots=True)
class SignalContainer:
    """Hook and order are done with: send the stop signal."""

    id: str
    container: str


@dataclass(frozen=True, slots=True)
class KillContainer:
    """The grace is over: SIGKILL. With a message it was not being stopped before, and the message is told."""

    id: str
    container: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class RestartAll:
    """A container has ended with an exit code whose rule is RestartAllContainers: note it."""


@dataclass(frozen=True, slots=True)
class Reset:
    """All containers have ended: what ran counts no more, the pod starts from its first init container."""


@dataclass(frozen=True, slots=True)
class ResizePod:
    """Give the pod's cgroup and its running containers the resources that were granted."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Every container has stopped for good: make the phase terminal."""


@dataclass(frozen=True, slots=True)
class TearDown:
    """Remove volumes, network, namespaces and cgroups of an ended pod."""


Action = (
    CreateSandbox
    | SetUpVolumes
    | EnsureImage
    | StartContainer
    | StopContainer
    | EndHook
    | SignalContainer
    | KillContainer
    | RestartAll
    | Reset
    | ResizePod
    | Finish
    | TearDown
)
