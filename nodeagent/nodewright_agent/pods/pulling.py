"""Images by a container's pull policy, with kubelet's events (images/image_manager.go)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError
from nodewright.kube.objects import Container, Pod, Secret
from nodewright.kube.resources import SECRETS
from nodewright_agent.pods import refs
from nodewright_agent.pods.backoff import format_duration
from nodewright_agent.pods.ports import Clock, Events, ImageProblem
from nodewright_agent.runtime.images.credentials import DOCKER_CFG, Credential, parse_docker_config
from nodewright_agent.runtime.images.errors import ImageError, RegistryUnavailable
from nodewright_agent.runtime.images.model import Image

log = logging.getLogger(__name__)


class Images(Protocol):
    """What is needed of the image store."""

    def resolve(self, ref: str) -> Image | None:
        """Return the image of a name that is complete in the store."""

    async def pull(self, ref: str, *, auth: Sequence[Credential] = ()) -> Image:
        """Fetch an image."""


class Source(Protocol):
    """Where images may be beside the store: on this machine, for somebody else."""

    async def current(self, ref: str, present: Image | None) -> Image | None:
        """Return what the name means on this machine, given what it means in the store; None: nothing."""


class ImagePuller:
    """Finds or pulls the images of containers.

    "Present on this machine" is what the store has, or one of ``sources``; with Always neither is looked at: the
    registry says each time what the name means, and content that we have is not fetched again.
    """

    def __init__(
        self, images: Images, client: Client, events: Events, clock: Clock, sources: Sequence[Source] = ()
    ) -> None:
        """Pull secrets are read through ``client``."""
        self._images, self._client, self._events, self._clock = images, client, events, clock
        self._sources = sources

    async def ensure(self, pod: Pod, container: Container) -> Image:
        """Return the image for the next start of the container. Raises ``ImageProblem``; events tell what was done."""
        ref, policy = container.image, container.image_pull_policy or "IfNotPresent"
        try:
            present = await self._present(ref) if policy != "Always" else None
        except ImageError as error:
            text = str(error)
            self._event(pod, container, "Warning", "InspectFailed", text)
            raise ImageProblem(error.reason, text) from None
        if present is not None:
            text = f'Container image "{ref}" already present on machine and can be accessed by the pod'
            self._event(pod, container, "Normal", "Pulled", text)
            return present
        if policy == "Never":
            text = f'Container image "{ref}" is not present with pull policy of Never'
            self._event(pod, container, "Warning", "ErrImageNeverPull", text)
            raise ImageProblem("ErrImageNeverPull", text)
        return await self._pull(pod, container)

    async def _present(self, ref: str) -> Image | None:
        image = self._images.resolve(ref)
        for source in self._sources:
            image = await source.current(ref, image)
        return image

    async def _pull(self, pod: Pod, container: Container) -> Image:
        ref = container.image
        self._event(pod, container, "Normal", "Pulling", f'Pulling image "{ref}"')
        begun = self._clock()
        try:
            image = await self._images.pull(ref, auth=await self._credentials(pod))
        except ImageError as error:
            self._event(pod, container, "Warning", "Failed", f'Failed to pull image "{ref}": {error}')
            if isinstance(error, RegistryUnavailable):
                text = f"image pull failed for {ref} because the registry is unavailable: {error}"
                raise ImageProblem(error.reason, text) from None
            raise ImageProblem(error.reason, str(error)) from None
        took = format_duration(int((self._clock() - begun) * 1000) / 1000)
        text = (
            f'Successfully pulled image "{ref}" in {took} ({took} including waiting). Image size: {image.size} bytes.'
        )
        self._event(pod, container, "Normal", "Pulled", text)
        return image

    async def _credentials(self, pod: Pod) -> list[Credential]:
        found: list[Credential] = []
        missing = []
        for reference in pod.spec.image_pull_secrets:
            try:
                secret = await self._client.get(SECRETS, reference.name, pod.metadata.namespace, type=Secret)
                key = ".dockercfg" if secret.type == DOCKER_CFG else ".dockerconfigjson"
                found += parse_docker_config(secret.data.get(key, b"{}"), secret_type=secret.type)
            except (ApiError, ValueError) as error:
                log.warning("pull secret %s is of no use: %s", reference.name, error, extra={"pod": pod.key})
                missing.append(reference.name)
        if missing:
            text = (
                f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
                "attempting to pull the image may not succeed."
            )
            self._events.event(refs.reference(pod), "Warning", "FailedToRetrieveImagePullSecret", text)
        return found

    def _event(self, pod: Pod, container: Container, type: str, reason: str, message: str) -> None:
        self._events.event(refs.reference(pod, container.name), type, reason, message)
