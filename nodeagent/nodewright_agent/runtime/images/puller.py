"""Pull an image from the first endpoint and credential that give it, into the layer store."""

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from nodewright_agent.runtime.images import config, manifest
from nodewright_agent.runtime.images.credentials import Credential, fits
from nodewright_agent.runtime.images.errors import (
    ErrImagePull,
    ImageCorrupt,
    ImageError,
    ImageNotFound,
    RegistryUnavailable,
    Unauthorized,
)
from nodewright_agent.runtime.images.layers import Blob
from nodewright_agent.runtime.images.layerstore import Feed, LayerStore
from nodewright_agent.runtime.images.manifest import Descriptor, Manifest, Platform
from nodewright_agent.runtime.images.model import LayerState, PullProgress
from nodewright_agent.runtime.images.reference import Reference
from nodewright_agent.runtime.images.registry import RegistryClient
from nodewright_agent.runtime.images.settings import RegistrySettings

log = logging.getLogger(__name__)

Report = Callable[[PullProgress], None]


class Fetched(msgspec.Struct, frozen=True):
    """A verified image whose layers are all in the layer store."""

    image_id: str
    config: bytes
    diff_ids: tuple[str, ...]
    digest: str  # of the manifest or index that the name leads to
    size: int
    credential: Credential | None = None
    """What the registry asked for and was given; None: it gave the image to anybody."""


class Puller:
    """Stateless but for its settings and the layer store."""

    def __init__(self, layers: LayerStore, settings: RegistrySettings) -> None:
        self._layers = layers
        self._settings = settings

    async def pull(
        self, reference: Reference, credentials: Sequence[Credential], platform: Platform, report: Report
    ) -> Fetched:
        """Try mirrors in order, and on each every credential that fits, in the given order, then none at all.

        Only "not found", "not allowed" and "not reachable" move on to the next; broken content of the registry itself
        is an error at once, a broken mirror is passed over.
        """
        endpoints = self._settings.endpoints(reference.domain)
        fitting = [credential for credential in credentials if fits(credential.registry, reference)]
        first: ImageError | None = None
        for position, endpoint in enumerate(endpoints):
            for credential in [*fitting, None]:
                try:
                    async with RegistryClient(endpoint, reference, credential) as client:
                        fetched = await self._fetch(client, reference, platform, report)
                        return msgspec.structs.replace(fetched, credential=client.used)
                except Unauthorized as error:
                    first = first or error
                except ImageError as error:
                    movable = isinstance(error, (ImageNotFound, RegistryUnavailable))
                    if not movable and position == len(endpoints) - 1:
                        raise _explained(error, reference) from error
                    first = error if first is None or isinstance(first, RegistryUnavailable) else first
                    details = {"endpoint": endpoint.base, "image": reference.name, "error": str(error)}
                    log.info("image endpoint does not have the image", extra=details)
                    break
        assert first is not None
        raise _explained(first, reference) from first

    async def _fetch(self, client: RegistryClient, reference: Reference, platform: Platform, report: Report) -> Fetched:
        found, digest = await self._resolve(client, reference, platform)
        raw = await client.small_blob(found.config, config.MAX_CONFIG_BYTES)
        document = config.parse(raw, platform)
        if len(document.diff_ids) != len(found.layers):
            raise ImageCorrupt(
                f"image config has {len(document.diff_ids)} diff ids, the manifest has {len(found.layers)} layers"
            )
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._layer(client, reference.name, descriptor, diff_id, report))
                    for descriptor, diff_id in zip(found.layers, document.diff_ids, strict=True)
                ]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None  # the first failure cancelled the others
        return Fetched(found.config.digest, raw, document.diff_ids, digest, sum(task.result() for task in tasks))

    async def _resolve(self, client: RegistryClient, reference: Reference, platform: Platform) -> tuple[Manifest, str]:
        target, outer, expected_type = reference.target, "", ""
        for _ in range(manifest.MAX_INDEX_DEPTH):
            data, content_type, digest = await client.manifest(target)
            outer = outer or digest
            document = manifest.parse(data, expected_type or content_type)  # a descriptor's type is under the digest
            if isinstance(document, Manifest):
                return document, outer
            chosen = manifest.choose(document, platform)
            target, expected_type = chosen.digest, chosen.media_type
        raise ErrImagePull("image index is nested too deeply")

    async def _layer(
        self, client: RegistryClient, ref: str, descriptor: Descriptor, diff_id: str, report: Report
    ) -> int:
        def say(state: LayerState, current: int) -> None:
            report(PullProgress(ref, descriptor.digest, state, current, descriptor.size))

        known = self._layers.get(diff_id)
        if known is not None:
            say("exists", descriptor.size)
            return known.size
        say("waiting", 0)

        async def source(feed: Feed) -> None:
            done = 0

            async def counted(data: bytes) -> None:
                nonlocal done
                await feed(data)
                done += len(data)
                say("pulling", done)

            await client.stream_blob(descriptor, counted)

        record = await self._layers.ensure(diff_id, lambda: Blob(descriptor.digest, descriptor.size), source)
        say("done", descriptor.size)
        return record.size


def _explained(error: ImageError, reference: Reference) -> ImageError:
    """The same kind of error with the image in its text, as containerd words it."""
    return type(error)(f'failed to pull and unpack image "{reference.name}": {error}')
