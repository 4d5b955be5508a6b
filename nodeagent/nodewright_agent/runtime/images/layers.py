"""Unpack one layer: verify, decompress, filter, and feed the confined tar. Blocking; meant for a thread."""

import errno
import fcntl
import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from nodewright_agent.runtime.images.compression import SniffingDecoder
from nodewright_agent.runtime.images.errors import ErrImagePull, ImageCorrupt, ImageError, StoreFull
from nodewright_agent.runtime.images.model import Limits, Unpacked
from nodewright_agent.runtime.images.tarfilter import TarFilter
from nodewright_agent.runtime.images.tools import tar_tools

log = logging.getLogger(__name__)

_CHILD: Final = Path(__file__).parent / "unpack" / "child.py"
_PIPE_BYTES: Final = 1 << 20
_NO_ROOM: Final = ("No space left on device", "Disk quota exceeded")


class Blob:
    """Counts and hashes compressed bytes as they come; refuses what exceeds the promised size at once (I04)."""

    def __init__(self, digest: str, size: int) -> None:
        self._digest = digest
        self._size = size
        self._hash = hashlib.new(digest.partition(":")[0])
        self.received = 0

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self.received += len(data)
        if self.received > self._size:
            raise ImageCorrupt(f"blob {self._digest} is larger than the {self._size} bytes that its descriptor says")
        self._hash.update(data)

    def finish(self) -> None:
        """Raise ImageCorrupt unless size and digest are as promised."""
        if self.received != self._size:
            raise ImageCorrupt(f"blob {self._digest} has {self.received} bytes, its descriptor says {self._size}")
        found = f"{self._digest.partition(':')[0]}:{self._hash.hexdigest()}"
        if found != self._digest:
            raise ImageCorrupt(f"blob has digest {found}, expected {self._digest}")


class LayerUnpacker:
    """Feed compressed bytes, get a verified directory. Not thread-safe: one call at a time.

    `directory` must be empty and on the store's file system. After any error, or `abort`, its content is garbage.
    `blob` is None where the transport has no digest of its own (docker archives); the diff id is checked always.
    """

    def __init__(self, directory: Path, diff_id: str, blob: Blob | None, limits: Limits) -> None:
        self._directory = directory
        self._diff_id = diff_id
        self._blob = blob
        self._limits = limits
        self._hash = hashlib.new(diff_id.partition(":")[0])
        self._decoder = SniffingDecoder()
        self._filter = TarFilter(limits)
        self._child: subprocess.Popen[bytes] | None = None

    def _start(self) -> "subprocess.Popen[bytes]":
        if os.geteuid() != 0:
            raise ErrImagePull("unpacking images needs root: owners and device numbers must be set")
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_CHILD), str(self._directory), str(self._limits.max_bytes),
             str(self._limits.memory), *tar_tools()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, env={},
        )  # fmt: skip
        assert child.stdin is not None
        try:
            fcntl.fcntl(child.stdin, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        except OSError:
            pass  # beyond the user's pipe quota: slower, nothing else
        return child

    def feed(self, data: bytes) -> None:
        """Take the next compressed bytes; blocks while tar is behind."""
        if self._child is None:
            self._child = self._start()
        if self._blob is not None:
            self._blob.update(data)
        for piece in self._decoder.feed(data):
            self._hash.update(piece)
            for part in self._filter.feed(piece):
                self._write(part)

    def _write(self, data: bytes) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._child.stdin.fileno(), view) :]
        except BrokenPipeError:
            self._report()
            raise ImageCorrupt(f"layer {self._diff_id}: tar ended before the archive did") from None

    def finish(self) -> Unpacked:
        """Everything was fed: check digests, wait for tar; raises ImageError."""
        if self._child is None:
            raise ImageCorrupt(f"layer {self._diff_id} is empty")
        self._decoder.finish()
        if self._blob is not None:
            self._blob.finish()
        found = f"{self._diff_id.partition(':')[0]}:{self._hash.hexdigest()}"
        if found != self._diff_id:
            raise ImageCorrupt(f"layer has diff id {found} when decompressed, the image config says {self._diff_id}")
        self._write(self._filter.finish())
        report = self._report()
        if self._filter.dropped:
            log.info("device nodes in an image layer were left out",
                     extra={"layer": self._diff_id, "count": self._filter.dropped})  # fmt: skip
        return Unpacked(int(report["bytes"]), int(report["entries"]), report["opaque_root"] == "1")

    def _report(self) -> dict[str, str]:
        """Wait for the child and read what it says; raises the error that it reports."""
        assert self._child is not None
        output, stderr = self._child.communicate()
        lines = output.decode(errors="replace").splitlines()
        if lines and lines[-1] == "ok" and self._child.returncode == 0:
            return dict(line.split(" ", 1) for line in lines[:-1])
        said = next((line[6:] for line in lines if line.startswith("error ")), "")
        said = said or stderr.decode(errors="replace").strip()[-500:] or f"exit code {self._child.returncode}"
        if any(text in said for text in _NO_ROOM):
            raise StoreFull(f"cannot unpack layer {self._diff_id}: no space left on device")
        raise ErrImagePull(f"cannot unpack layer {self._diff_id}: {said}")

    def kill(self) -> None:
        """Make a call that another thread has under way end with an error; the only method that may overlap."""
        if self._child is not None:
            self._child.kill()

    def abort(self) -> None:
        """Stop at once and release everything; no other call may be under way. Fine after `finish` too."""
        self._decoder.close()
        if self._child is not None:
            self._child.kill()
            try:
                self._child.communicate()
            except (ValueError, BrokenPipeError):
                self._child.wait()  # its pipes are closed already


def as_image_error(error: OSError) -> ImageError:
    """The image error for a failed system call in the store."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"no space left on device: {error.filename or 'image store'}")
    return ErrImagePull(f"image store: {error}")
