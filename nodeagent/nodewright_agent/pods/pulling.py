"""Images by a container's pull policy, with kubelet's events (images/image_manager.go)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Protocol

from nodewright.kube.objects import Container, Pod
from nodewright_agent.pods import refs
from nodewright_agent.pods.backoff import format_duration
from nodewright_agent.pods.ports import Clock, Events, ImageProblem
from nodewright_agent.pods.pullkeys import Keyring
from nodewright_agent.pods.pullmetrics import PullMetrics
from nodewright_agent.runtime.images import access, reference
from nodewright_agent.runtime.images.access import PulledRecord, Verdict, Verification
from nodewright_agent.runtime.images.credentials import Credential
from nodewright_agent.runtime.images.errors import ImageError, RegistryUnavailable
from nodewright_agent.runtime.images.model import Image, Pulled, PullProgress
from nodewright_agent.runtime.images.progress import Meter

log = logging.getLogger(__name__)

TELL_AFTER: Final = (10.0, 30.0, 30.0, 60.0, 60.0, 120.0, 300.0)
"""Seconds between the events that say how far a pull is; the last one repeats.

They grow since the events of one Pod are limited: 25, and then one in five minutes (client-go's spam filter).
"""


class Records(Protocol):
    """What is needed of the store's records of who may use which image."""

    def get(self, image_id: str) -> PulledRecord | None:
        """The record of an image."""

    def note(self, image_id: str, repository: str, credential: Credential) -> None:
        """Note that a credential gives access."""


class Images(Protocol):
    """What is needed of the image store."""

    @property
    def pulled(self) -> Records:
        """Who may use which image."""

    def resolve(self, ref: str) -> Image | None:
        """Return the image of a name that is complete in the store."""

    async def pull_for(
        self, ref: str, *, auth: Sequence[Credential] = (), progress: Callable[[PullProgress], None] | None = None
    ) -> Pulled:
        """Fetch an image for a Pod."""


class Source(Protocol):
    """Where images may be beside the store: on this machine, for somebody else."""

    async def current(self, ref: str, present: Image | None) -> Image | None:
        """Return what the name means on this machine, given what it means in the store; None: nothing."""


class ImagePuller:
    """Finds or pulls the images of containers.

    "Present on this machine" is what the store has, or one of ``sources``; with Always neither is looked at: the
    registry says each time what the name means, and content that we have is not fetched again. Whether a Pod may use
    what is present, is for ``verification`` to say; where it may not, the registry is asked with the Pod's credentials.
    """

    def __init__(
        self,
        images: Images,
        keyring: Keyring,
        events: Events,
        clock: Clock,
        sources: Sequence[Source] = (),
        verification: Verification | None = None,
        metrics: PullMetrics | None = None,
    ) -> None:
        """``keyring`` gives the credentials of Pods."""
        self._images, self._keyring, self._events, self._clock = images, keyring, events, clock
        self._sources = sources
        self._verification = verification or Verification()
        self.metrics = metrics or PullMetrics()

    async def ensure(self, pod: Pod, container: Container) -> Image:
        """Return the image for the next start of the container. Raises ``ImageProblem``; events tell what was done."""
        ref, policy = container.image, container.image_pull_policy or "IfNotPresent"
        known: bool | None = None
        required: bool | None = None
        try:
            try:
                parsed = reference.parse(ref)
                present = await self._present(ref) if policy != "Always" else None
            except ImageError as error:
                text = str(error)
                self._event(pod, container, "Warning", "InspectFailed", text)
                raise ImageProblem(error.reason, text) from None
            known = present is not None if policy != "Always" else None
            lookup = self._keyring.lookup_once(pod, parsed)
            if present is not None:
                required = False
                if await self._may_use(present, parsed, lookup):
                    text = f'Container image "{ref}" already present on machine and can be accessed by the pod'
                    self._event(pod, container, "Normal", "Pulled", text)
                    return present
            required = True if policy != "Never" or present is not None else None
            if policy == "Never":
                # The same words whether it is not here or not this Pod's: that it is here is not to be told.
                text = f'Container image "{ref}" is not present with pull policy of Never'
                self._event(pod, container, "Warning", "ErrImageNeverPull", text)
                raise ImageProblem("ErrImageNeverPull", text)
            return await self._pull(pod, container, await lookup())
        finally:
            self.metrics.requested(policy, known, required)

    async def _present(self, ref: str) -> Image | None:
        image = self._images.resolve(ref)
        for source in self._sources:
            image = await source.current(ref, image)
        return image

    async def _may_use(self, image: Image, name: reference.Reference, lookup: access.Lookup) -> bool:
        records = self._images.pulled
        try:
            record = records.get(image.id)
            verdict, found = await access.check(self._verification, record, name, lookup)
            if found is not None and record is not None and access.is_new(record, name, found):
                await asyncio.to_thread(records.note, image.id, name.repository, found)
        except OSError as error:
            log.error("cannot read who may use an image; its registry is asked", extra={"error": str(error)})
            verdict = Verdict.FAILED
        self.metrics.checked(verdict)
        return verdict in (Verdict.POLICY, Verdict.KNOWN)

    async def _pull(self, pod: Pod, container: Container, credentials: Sequence[Credential]) -> Image:
        ref = container.image
        self._event(pod, container, "Normal", "Pulling", f'Pulling image "{ref}"')
        begun = self._clock()
        try:
            async with self._told(pod, container) as progress:
                pulled = await self._images.pull_for(ref, auth=credentials, progress=progress)
        except ImageError as error:
            self._event(pod, container, "Warning", "Failed", f'Failed to pull image "{ref}": {error}')
            if isinstance(error, RegistryUnavailable):
                text = f"image pull failed for {ref} because the registry is unavailable: {error}"
                raise ImageProblem(error.reason, text) from None
            raise ImageProblem(error.reason, str(error)) from None
        image, waited = pulled.image, self._clock() - begun
        took, in_all = (_milliseconds(seconds) for seconds in (min(pulled.seconds, waited), waited))
        text = (
            f'Successfully pulled image "{ref}" in {took} ({in_all} including waiting). Image size: {image.size} bytes.'
        )
        self._event(pod, container, "Normal", "Pulled", text)
        self.metrics.pulled(image.size, waited)
        return image

    @contextlib.asynccontextmanager
    async def _told(self, pod: Pod, container: Container) -> AsyncIterator[Callable[[PullProgress], None]]:
        """Tell by events how a pull goes on that takes long; gives what is to be told its steps."""
        meter = Meter(container.image, clock=self._clock)

        async def tell() -> None:
            for count in itertools.count():
                await asyncio.sleep(TELL_AFTER[min(count, len(TELL_AFTER) - 1)])
                text = f'Pulling image "{container.image}": {meter.read().text}'
                self._event(pod, container, "Normal", "Pulling", text)

        task = asyncio.create_task(tell(), name="pull progress")
        try:
            yield meter.take
        finally:
            task.cancel()

    def _event(self, pod: Pod, container: Container, type: str, reason: str, message: str) -> None:
        self._events.event(refs.reference(pod, container.name), type, reason, message)


def _milliseconds(seconds: float) -> str:
    return format_duration(int(seconds * 1000) / 1000)
