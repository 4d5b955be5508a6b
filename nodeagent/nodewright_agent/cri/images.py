"""The ImageService on the agent's image store."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Any

import msgspec

from nodewright_agent.cri import wire
from nodewright_agent.cri.clock import now
from nodewright_agent.cri.errors import Invalid, Lacking
from nodewright_agent.cri.lookup import find
from nodewright_agent.cri.parts import Parts
from nodewright_agent.runtime.images import reference
from nodewright_agent.runtime.images.credentials import Credential
from nodewright_agent.runtime.images.errors import ImageNotFound
from nodewright_agent.runtime.images.model import Image

_DOCKER = ("index.docker.io", "registry-1.docker.io")


class ImageService:
    """The calls, by their names in CRI."""

    def __init__(self, parts: Parts) -> None:
        """Work with the store of these parts."""
        self._parts, self._store = parts, parts.images

    async def ListImages(self, request: Any) -> Any:
        """All images, or the one that the filter names."""
        return wire.ListImagesResponse(images=self._list(request))

    async def StreamImages(self, request: Any) -> Any:
        """The same."""
        return wire.StreamImagesResponse(images=self._list(request))

    async def ImageStatus(self, request: Any) -> Any:
        """One image; none in the answer where there is none."""
        image = find(self._store, _name(request.image))
        if image is None:
            return wire.ImageStatusResponse()
        info = {"info": msgspec.json.encode(image.config).decode()} if request.verbose else {}
        return wire.ImageStatusResponse(image=shown(image), info=info)

    async def PullImage(self, request: Any) -> Any:
        """Fetch an image, or make sure that it is current."""
        name = _name(request.image)
        self._parts.settings.program(request.image.runtime_handler)
        parsed = reference.parse(name)
        auth = [found] if (found := credential(request.auth, parsed)) is not None else []
        image = await self._store.pull(name, auth=auth)
        return wire.PullImageResponse(image_ref=image.id)

    async def RemoveImage(self, request: Any) -> Any:
        """Remove an image with all its names; one that is not there is gone."""
        image = find(self._store, _name(request.image))
        if image is not None:
            try:
                await asyncio.to_thread(self._store.remove, image.id)
            except ImageNotFound:
                pass  # somebody else was faster
        return wire.RemoveImageResponse()

    async def ImageFsInfo(self, request: Any) -> Any:
        """What all images use on disk."""
        used, entries = await asyncio.to_thread(self._store.usage)
        usage = wire.FilesystemUsage(
            timestamp=now(),
            fs_id=wire.FilesystemIdentifier(mountpoint=str(self._parts.settings.image_root)),
            used_bytes=wire.UInt64Value(value=used),
            inodes_used=wire.UInt64Value(value=entries),
        )
        return wire.ImageFsInfoResponse(image_filesystems=[usage], container_filesystems=[usage])

    def _list(self, request: Any) -> list[Any]:
        wanted = request.filter.image.image
        if wanted:
            image = find(self._store, wanted)
            return [shown(image)] if image is not None else []
        return [shown(image) for image in self._store.list()]


def shown(image: Image) -> Any:
    """The image as CRI has it."""
    found = wire.Image(
        id=image.id,
        repo_tags=image.names,
        repo_digests=image.digests,
        size=max(image.size, 1),
        spec=wire.ImageSpec(image=image.id),
    )
    user = image.config.user.partition(":")[0]
    if user.isdecimal() and len(user) <= 19 and int(user) < 1 << 63:
        found.uid.value = int(user)
    else:
        found.username = user
    return found


def credential(auth: Any, parsed: reference.Reference) -> Credential | None:
    """What an AuthConfig gives for an image; None: nothing, or for another registry. Raises Invalid, Lacking."""
    if auth.registry_token:
        raise Lacking("auth.registry_token: bearer tokens are not implemented")
    server = (auth.server_address.partition("://")[2] or auth.server_address).partition("/")[0]
    if server and (reference.DEFAULT_DOMAIN if server in _DOCKER else server) != parsed.domain:
        return None
    name, password = auth.username, auth.password
    if not name and auth.auth:
        try:
            name, colon, password = base64.b64decode(auth.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise Invalid("auth.auth is not base64") from None
        if not colon:
            raise Invalid("auth.auth has no colon")
        password = password.rstrip("\0")
    if not (name or auth.identity_token):
        return None
    return Credential(parsed.domain, name, password, auth.identity_token)


def _name(image: Any) -> str:
    if not image.image:
        raise Invalid("image must not be empty")
    return str(image.image)
