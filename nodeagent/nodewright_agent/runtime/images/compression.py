"""Streaming decompression of layers: gzip, zstd or none, told by their first bytes.

Output comes in pieces of at most 1 MiB whatever the input claims, so a compression bomb costs time within the byte
limit of the caller, never memory (I12).
"""

import ctypes
import ctypes.util
import functools
import zlib
from collections.abc import Iterator
from typing import Any, Final, Protocol

from nodewright_agent.runtime.images.errors import ErrImagePull, ImageCorrupt

PIECE: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_REFUSED: Final = {b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2", b"\x04\x22\x4d\x18": "lz4"}
_SNIFF: Final = 6
# 128 MiB is the largest window that the zstd tool takes without being asked; image builders stay far below.
_ZSTD_WINDOW_LOG: Final = 27
_ZSTD_D_WINDOW_LOG_MAX: Final = 100


class Decoder(Protocol):
    """A streaming decompressor. `close` may be called at any time, and more than once."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` decompresses to."""
        ...

    def finish(self) -> None:
        """Raise ImageCorrupt unless the stream ended where it may."""
        ...

    def close(self) -> None:
        """Release memory."""
        ...


class PlainDecoder:
    """No compression."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the data itself."""
        yield data

    def finish(self) -> None:
        """Nothing can be missing at this level."""

    def close(self) -> None:
        """Nothing to release."""


class GzipDecoder:
    """gzip with any number of members. Zero padding after the last one is allowed, anything else is not."""

    def __init__(self) -> None:
        self._member: Any = zlib.decompressobj(wbits=31)
        self._fresh = True  # nothing of the current member was read yet
        self._tail = b""  # bytes between members, too few to tell what they are
        self._members = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield decompressed pieces."""
        data, self._tail = self._tail + data, b""
        while data:
            if self._fresh and self._members:
                data = data.lstrip(b"\0")
                if len(data) < 2:
                    self._tail = data
                    return
                if not data.startswith(_GZIP):
                    raise ImageCorrupt("layer has trailing garbage after its gzip data")
            try:
                piece = self._member.decompress(data, PIECE)
            except zlib.error as error:
                raise ImageCorrupt(f"layer is not valid gzip: {error}") from None
            self._fresh = False
            if piece:
                yield piece
            if self._member.eof:
                data = self._member.unused_data
                self._member = zlib.decompressobj(wbits=31)
                self._fresh = True
                self._members += 1
            else:
                data = self._member.unconsumed_tail

    def finish(self) -> None:
        """The last member must be complete."""
        if not self._fresh or not self._members or self._tail:
            raise ImageCorrupt("layer is truncated: its gzip data ends early")

    def close(self) -> None:
        """Nothing beyond what the garbage collector frees."""


class _Buffer(ctypes.Structure):
    _fields_ = (("address", ctypes.c_void_p), ("size", ctypes.c_size_t), ("position", ctypes.c_size_t))


@functools.cache
def _libzstd() -> Any:
    try:
        library = ctypes.CDLL("libzstd.so.1")  # on every Debian: dpkg depends on it
    except OSError:
        raise ErrImagePull("layer is compressed with zstd, and libzstd.so.1 is not installed") from None
    library.ZSTD_createDCtx.restype = ctypes.c_void_p
    library.ZSTD_freeDCtx.argtypes = (ctypes.c_void_p,)
    library.ZSTD_DCtx_setParameter.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
    library.ZSTD_DCtx_setParameter.restype = ctypes.c_size_t
    library.ZSTD_decompressStream.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Buffer), ctypes.POINTER(_Buffer))
    library.ZSTD_decompressStream.restype = ctypes.c_size_t
    library.ZSTD_isError.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    return library


class ZstdDecoder:
    """zstd frames, one after another, with the window bounded (a long-window bomb is refused)."""

    def __init__(self) -> None:
        self._lib = _libzstd()
        self._context: int | None = self._lib.ZSTD_createDCtx()
        if not self._context:
            raise MemoryError("ZSTD_createDCtx")
        self._check(self._lib.ZSTD_DCtx_setParameter(self._context, _ZSTD_D_WINDOW_LOG_MAX, _ZSTD_WINDOW_LOG))
        self._output = ctypes.create_string_buffer(PIECE)
        self._frame_open = True

    def _check(self, code: int) -> int:
        if self._lib.ZSTD_isError(code):
            raise ImageCorrupt(f"layer is not valid zstd: {self._lib.ZSTD_getErrorName(code).decode()}")
        return code

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield decompressed pieces."""
        keep = ctypes.create_string_buffer(data, len(data))
        source = _Buffer(ctypes.addressof(keep), len(data), 0)
        while True:
            target = _Buffer(ctypes.addressof(self._output), PIECE, 0)
            before = source.position
            hint = self._check(self._lib.ZSTD_decompressStream(self._context, target, source))
            if target.position or source.position != before:
                self._frame_open = hint != 0
            if target.position:
                yield self._output.raw[: target.position]
            if source.position == source.size and target.position < PIECE:
                return

    def finish(self) -> None:
        """The last frame must be complete."""
        if self._frame_open:
            raise ImageCorrupt("layer is truncated: its zstd data ends early")

    def close(self) -> None:
        """Free the native context."""
        if self._context:
            self._lib.ZSTD_freeDCtx(self._context)
            self._context = None


class SniffingDecoder:
    """Chooses by the first bytes, as containerd does: media types lie, and the diff id is checked anyway."""

    def __init__(self) -> None:
        self._head = b""
        self._inner: Decoder | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield decompressed pieces."""
        if self._inner is None:
            self._head += data
            if len(self._head) < _SNIFF:
                return
            data, self._head = self._head, b""
            self._inner = _decoder_for(data)
        yield from self._inner.feed(data)

    def finish(self) -> None:
        """The stream must be complete."""
        if self._inner is None:
            raise ImageCorrupt("layer is empty" if not self._head else "layer is truncated")
        self._inner.finish()

    def close(self) -> None:
        """Release what the chosen decoder holds."""
        if self._inner is not None:
            self._inner.close()


def _decoder_for(head: bytes) -> Decoder:
    if head.startswith(_GZIP):
        return GzipDecoder()
    if head.startswith(_ZSTD):
        return ZstdDecoder()
    for magic, name in _REFUSED.items():
        if head.startswith(magic):
            raise ErrImagePull(f"layer is compressed with {name}, which is not supported")
    return PlainDecoder()
