"""Why a container waits: reasons and messages in kubelet's wording. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from nodewright.kube.objects import Container, Pod
from nodewright_agent.pods.backoff import BackoffPolicy, blocked_until, format_duration
from nodewright_agent.pods.model import PodState, StepState, display_name

# How long an error is shown before it gives way to the back-off that follows from it (ErrImagePull before
# ImagePullBackOff, RunContainerError before CrashLoopBackOff). kubelet changes at its next sync, seconds later.
ERROR_SHOWN = 2.0

# Pulls that are not worth repeating soon keep their own reason, as upstream does.
_LASTING = ("ErrImageNeverPull", "InvalidImageName")


@dataclass(frozen=True, slots=True)
class Waiting:
    """The state of a waiting container; ``until``: when to look again (None: an event will tell)."""

    reason: str
    message: str = ""
    until: float | None = None


def for_backoff(pod: Pod, container: Container, state: PodState, now: float, policy: BackoffPolicy) -> Waiting | None:
    """Return the wait after a crash; None when the container may be started again."""
    run = state.latest(container.name)
    if run is None or run.running or run.image != container.image:
        return None
    entry = state.backoffs.get(container.name)
    until = blocked_until(entry, run.finished_at, now, policy)
    if entry is None or until is None:
        return None
    failure = state.failures.get(container.name)
    if failure is not None and now < failure.at + ERROR_SHOWN:
        return Waiting(failure.reason, failure.message, min(until, failure.at + ERROR_SHOWN))
    delay = format_duration(entry.delay)
    message = f"back-off {delay} restarting failed container={container.name} pod={display_name(pod)}"
    return Waiting("CrashLoopBackOff", message, until)


def for_failure(container: Container, state: PodState, now: float) -> Waiting | None:
    """Return the wait after a start that failed before the container existed."""
    failure = state.failures.get(container.name)
    if failure is None or now >= failure.retry_at:
        return None
    return Waiting(failure.reason, failure.message, failure.retry_at)


def for_image(container: Container, state: PodState, now: float) -> Waiting | None:
    """Return the wait for the image, with an empty reason while nothing has gone wrong; None when it is there."""
    image = state.images.get(container.name)
    if image is None or image.state is StepState.NONE or image.image != container.image:
        return Waiting("")
    if image.state is StepState.READY:
        return None
    if not image.reason:
        return Waiting("")
    if image.reason in _LASTING:
        return Waiting(image.reason, image.message, image.retry_at if image.retry_at > now else None)
    if image.state is StepState.FAILED and now < image.failed_at + ERROR_SHOWN:
        return Waiting(image.reason, image.message, min(image.retry_at, image.failed_at + ERROR_SHOWN))
    text = f'Back-off pulling image "{image.lacking or container.image}": {image.reason}: {image.message}'
    until = image.retry_at if image.state is StepState.FAILED and image.retry_at > now else None
    return Waiting("ImagePullBackOff", text, until)
