"""The images of another runtime: found, pulled, listed and removed by its ImageService.

``RemoteImages`` is what the puller needs of a store and of a place where images may be already; ``list`` and ``remove``
are for the collector, which works in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nodewright_agent.cri import wire
from nodewright_agent.remote import labels
from nodewright_agent.remote.client import CallFailed, Client, Missing
from nodewright_agent.runtime.images import reference
from nodewright_agent.runtime.images.access import PulledRecord, PulledRecords, shown_by
from nodewright_agent.runtime.images.config import ImageConfig
from nodewright_agent.runtime.images.credentials import Credential
from nodewright_agent.runtime.images.errors import ErrImagePull, ImageError, ImageNotFound, RegistryUnavailable
from nodewright_agent.runtime.images.fsutil import locked
from nodewright_agent.runtime.images.gate import Gate
from nodewright_agent.runtime.images.model import Image, Pulled, PullProgress
from nodewright_agent.runtime.images.records import Layout

_ANSWER = 60.0


class PulledHere(PulledRecords):
    """Who may use which image, noted below the agent's own directory: the runtime knows nothing of it."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self._lock = layout.write_lock

    def get(self, image_id: str) -> PulledRecord | None:
        """The record of an image. Blocking."""
        return super().get(_digest(image_id))

    def note(self, image_id: str, repository: str, credential: Credential) -> None:
        """Note a credential that was found good. Blocking."""
        self.write(image_id, repository, credential)

    def write(self, image_id: str, repository: str, credential: Credential | None) -> None:
        """Note what gave access; None: nothing was needed. Blocking."""
        with locked(self._lock):
            self.add(_digest(image_id), repository, shown_by(credential))


class RemoteImages:
    """Implements ``pulling.Images``, ``pulling.Source`` and ``gc.Store``."""

    def __init__(self, client: Client, directory: Path, gate: Gate, node_name: str = "") -> None:
        """Ask this runtime; ``directory`` is for the records of who may use an image, ``gate`` holds up pulls."""
        layout = Layout(directory)
        for folder in (layout.locks, layout.pulled_records):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.pulled = PulledHere(layout)
        self._client, self._gate, self._node_name = client, gate, node_name
        self._loop = asyncio.get_running_loop()
        self._known: dict[str, Image] = {}
        self._pinned: set[str] = set()
        self.sandbox_image = ""
        """What the runtime starts sandboxes with: it stays, as one does without which no pod starts."""
        self._used: tuple[int, int] = (0, 0)

    async def close(self) -> None:
        """Nothing is open."""

    # For the puller

    def resolve(self, ref: str) -> Image | None:
        """Nothing is here: ``current`` asks the runtime."""
        return None

    async def current(self, ref: str, present: Image | None) -> Image | None:
        """What a name means in the runtime; None: nothing. Raises ImageError."""
        try:
            answer = await self._client.images("ImageStatus", image=_spec(ref))
        except Missing:
            return None
        except CallFailed as error:
            raise ImageInspectError(str(error)) from error
        return self._keep(answer.image) if answer.HasField("image") else None

    async def pull_for(
        self, ref: str, *, auth: Sequence[Credential] = (), progress: Callable[[PullProgress], None] | None = None
    ) -> Pulled:
        """Have the image pulled, with each credential in turn, and note which gave access. Raises ImageError.

        No progress is told: CRI has no word for it.
        """
        parsed = reference.parse(ref)
        problems: list[ImageError] = []
        async with self._gate.passed():
            begun = time.monotonic()
            for credential in auth or (None,):
                try:
                    image = await self._pull(parsed.name, credential)
                except ImageError as error:
                    problems.append(error)
                    continue
                took = time.monotonic() - begun
                await asyncio.to_thread(self.pulled.write, image.id, parsed.repository, credential)
                return Pulled(image, took)
        raise problems[0] if len(problems) == 1 else _all(problems)

    async def _pull(self, name: str, credential: Credential | None) -> Image:
        given = None
        if credential is not None:
            given = wire.AuthConfig(
                username=credential.username,
                password=credential.password,
                identity_token=credential.identity_token,
            )
        try:
            # A pull takes as long as it takes: the runtime ends one that does not get on.
            answer = await self._client.images("PullImage", deadline=None, image=_spec(name), auth=given)
        except CallFailed as error:
            text = str(error)
            raise _pull_error(text) from error
        found = await self.current(answer.image_ref, None)
        if found is None:
            raise ErrImagePull(f"image {name} was pulled as {answer.image_ref}, which the runtime does not know")
        return found

    # For status and collection

    async def look(self) -> None:
        """Ask for all images, and for what they take. Raises CallFailed."""
        answer = await self._client.images("ListImages")
        usage = await self._client.images("ImageFsInfo")
        self._known = {one.id: _image(one) for one in answer.images}
        self._pinned = {one.id for one in answer.images if one.pinned}
        self._used = (
            sum(one.used_bytes.value for one in usage.image_filesystems),
            sum(one.inodes_used.value for one in usage.image_filesystems),
        )

    async def mountpoint(self) -> str:
        """Where the runtime keeps images; empty where it does not tell. Raises CallFailed."""
        answer = await self._client.images("ImageFsInfo")
        return next((one.fs_id.mountpoint for one in answer.image_filesystems), "")

    def all(self) -> list[Image]:
        """All images, as they were when last looked for."""
        return list(self._known.values())

    def usage(self) -> tuple[int, int]:
        """Bytes and inodes of all images, as last looked for."""
        return self._used

    def id_of(self, ref: str) -> str:
        """The id of what a name meant when last looked for; else "". Raises ImageError."""
        if reference.is_digest(ref):
            return ref
        name = reference.parse(ref).name
        return next((one.id for one in self._known.values() if name in one.names or name in one.digests), "")

    def list(self) -> list[Image]:
        """Ask for all images that may be collected, from a thread. Raises ImageError."""
        with _told():
            others = asyncio.run_coroutine_threadsafe(self._others(), self._loop).result(_ANSWER)
        kept = self._pinned | {self.id_of(self.sandbox_image) if self.sandbox_image else ""} | others
        return [one for one in self.all() if kept.isdisjoint([one.id, *one.names, *one.digests])]

    async def _others(self) -> set[str]:
        """Look; the images of containers that are not this node's, which no pod of ours would speak for."""
        await self.look()
        answer = await self._client.runtime("ListContainers")
        found = [one for one in answer.containers if one.labels.get(labels.NODE) != self._node_name]
        return {name for one in found for name in (one.image_id, one.image_ref, one.image.image) if name}

    def remove(self, ref: str) -> None:
        """Have an image removed, from a thread. Raises ImageError."""
        with _told():
            asyncio.run_coroutine_threadsafe(self._remove(ref), self._loop).result(_ANSWER)

    async def _remove(self, image_id: str) -> None:
        await self._client.images("RemoveImage", image=_spec(image_id))
        self._known.pop(image_id, None)

    def _keep(self, found: Any) -> Image:
        image = self._known[found.id] = _image(found)
        return image


class ImageInspectError(ImageError):
    """The runtime could not say whether it has an image."""

    reason = "ImageInspectError"


class SignatureInvalid(ImageError):
    """The runtime does not take an image by its policy of signatures."""

    reason = "SignatureValidationFailed"


def _pull_error(text: str) -> ImageError:
    """By its first word a runtime tells which of CRI's well-known errors it is."""
    known = (RegistryUnavailable, SignatureInvalid)
    return next((kind(text) for kind in known if text.startswith(kind.reason)), ErrImagePull(text))


def _image(found: Any) -> Image:
    """An Image of CRI. Who its processes run as is told by number or by name."""
    user = str(found.uid.value) if found.HasField("uid") else found.username
    return Image(
        id=found.id,
        names=list(found.repo_tags),
        digests=list(found.repo_digests),
        size=found.size,
        config=ImageConfig(user=user),
        layers=[],
    )


def _digest(image_id: str) -> str:
    """An id as the records have it: some runtimes leave the algorithm out."""
    return image_id if ":" in image_id else f"sha256:{image_id}"


def _spec(name: str) -> Any:
    return wire.ImageSpec(image=name)


def _all(problems: Sequence[ImageError]) -> ImageError:
    return ErrImagePull("[" + ", ".join(str(one) for one in problems) + "]")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except Missing as error:
        raise ImageNotFound(str(error)) from error
    except (CallFailed, TimeoutError) as error:
        raise ImageError(str(error) or "the runtime does not answer") from error
