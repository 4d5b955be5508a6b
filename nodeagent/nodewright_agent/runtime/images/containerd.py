"""Images that the host's containerd has (`kind load`, a kubelet's pulls): taken from there before a registry is asked.

To a user "the machine" has an image when containerd shows it, so that counts as present: for IfNotPresent and Never.
With Always upstream asks the registry each time what the name means now, and so do we; containerd is not looked at.

An image that came from containerd follows it: where its name means another image there by now, the new one is taken
(kubelet would run that one). An image that we pulled from a registry ourselves stays what it is.
"""

import asyncio
import logging
import tempfile
from pathlib import Path

from nodewright_agent.runtime import processes
from nodewright_agent.runtime.hostspace import HostSpace
from nodewright_agent.runtime.images import reference
from nodewright_agent.runtime.images.errors import ImageError
from nodewright_agent.runtime.images.model import Image
from nodewright_agent.runtime.images.store import HERE, ImageStore

log = logging.getLogger(__name__)

ORIGIN = "containerd"
NAMESPACE = "k8s.io"
_ASK_SECONDS, _EXPORT_SECONDS = 20.0, 900.0


class Containerd:
    """The host's containerd, asked through `ctr` in the host's mount namespace."""

    def __init__(self, store: ImageStore, space: HostSpace, *, program: str = "ctr") -> None:
        """Bring what is found into `store`."""
        self._store, self._space, self._program = store, space, program
        self._lock = asyncio.Lock()
        self._silent = False

    async def current(self, ref: str, present: Image | None) -> Image | None:
        """The image that `ref` means on this machine: `present`, our store's, or containerd's; None: there is none.

        Raises ImageError only for a malformed `ref`. What goes wrong with containerd is logged, and the registry is
        next; where containerd's newer image cannot be had, `present` is not given instead of it.
        """
        if reference.is_digest(ref) or (present is not None and self._store.origin(ref) != ORIGIN):
            return present
        parsed = reference.parse(ref)
        # As containerd's CRI names it: by digest alone where there is one.
        name = parsed.with_digest(parsed.digest).name if parsed.digest else parsed.name
        try:
            digest = await self._digest(name)
        except (OSError, TimeoutError) as error:
            self._complain(f"{type(error).__name__}: {error}")
            return present
        if not digest or (present is not None and parsed.with_digest(digest).name in present.digests):
            return present
        async with self._lock:
            return await self._take(parsed, digest)

    async def _take(self, parsed: reference.Reference, digest: str) -> Image | None:
        known = self._store.resolve(parsed.with_digest(digest).name)
        if known is not None and self._store.resolve(parsed.name) == known:
            return known  # taken while we waited for our turn
        name = parsed.with_digest(parsed.digest).name if parsed.digest else parsed.name
        facts = {"image": name, "digest": digest}
        try:
            with tempfile.NamedTemporaryFile(dir=self._store.scratch, prefix="containerd-", suffix=".tar") as file:
                code, output = await self._export(name, file.fileno())
                if code == 0:
                    image = await self._store.load_named(Path(file.name), parsed, origin=ORIGIN)
                    log.info("image taken from the host's containerd", extra=facts)
                    return image
                said = output.decode(errors="replace").strip()[-500:]
        except (ImageError, OSError, TimeoutError) as error:
            said = str(error) or type(error).__name__
        # Content that containerd has discarded after unpacking, or that is for another platform, ends here.
        log.warning("the host's containerd cannot give an image, the registry is next", extra={**facts, "error": said})
        return None

    async def _digest(self, name: str) -> str:
        """What the name stands for in containerd; empty when it has no such image."""
        words = [self._program, "-n", NAMESPACE, "images", "ls", f'name=="{name}"']
        code, output = await processes.run(self._space.command(words), timeout=_ASK_SECONDS)
        text = output.decode(errors="replace")
        if code:
            raise OSError(text.strip()[-500:] or f"exit code {code}")
        self._silent = False
        return digest_in(text, name)

    async def _export(self, name: str, target: int) -> tuple[int, bytes]:
        words = [self._program, "-n", NAMESPACE, "images", "export", "--platform", HERE, "-", name]
        return await processes.run(self._space.command(words), timeout=_EXPORT_SECONDS, stdout=target)

    def _complain(self, text: str) -> None:
        """Say once that containerd cannot be asked, until it can again."""
        if not self._silent:
            log.warning("the host's containerd cannot be asked for images: %s", text)
        self._silent = True


def digest_in(table: str, name: str) -> str:
    """The digest column of `ctr images ls` in the row of `name`; empty without one. Pure."""
    for line in table.splitlines():
        fields = line.split()
        if len(fields) > 2 and fields[0] == name and reference.is_digest(fields[2]):
            return fields[2]
    return ""
