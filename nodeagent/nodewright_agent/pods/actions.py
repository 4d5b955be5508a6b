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
    """Run preStop, then send the stop signal; ``grace`` in seconds. The machine sends the kill itself."""

    id: str
    container: str
    grace: float
    message: str


@dataclass(frozen=True, slots=True)
class KillContainer:
    """The grace is over: SIGKILL."""

    id: str
    container: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Every container has stopped for good: make the phase terminal."""


@dataclass(frozen=True, slots=True)
class TearDown:
    """Remove volumes, network, namespaces and cgroups of an ended pod."""


Action = CreateSandbox | SetUpVolumes | EnsureImage | StartContainer | StopContainer | KillContainer | Finish | TearDown
