"""A filter in front of tar: checks headers, bounds what may come, leaves out what must not be made. Pure.

It is the second line of defence. The first is that tar runs confined to the layer directory (see unpack/), so a
header that this filter and tar read differently can spoil a layer and nothing else.
"""

from collections.abc import Iterator
from typing import Final

from nodewright_agent.runtime.images.errors import ImageCorrupt
from nodewright_agent.runtime.images.model import Limits

BLOCK: Final = 512
_ZEROS: Final = bytes(BLOCK)
_MAX_META: Final = 1 << 20  # a PAX header or a GNU long name; tar would allocate whatever size it says
_REGULAR: Final = frozenset(b"0\x007")
_EMPTY: Final = frozenset(b"12345 6".replace(b" ", b""))  # links, devices, directories, fifos carry no data
_DEVICES: Final = frozenset(b"34")
_HARDLINK: Final = ord("1")


def _number(field: bytes, what: str) -> int:
    """An octal or base-256 field, not negative."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
        if field[0] & 0x40:
            raise ImageCorrupt(f"layer has a tar header with a negative {what}")
    else:
        text = field.split(b"\0", 1)[0].strip()
        try:
            value = int(text, 8) if text else 0
        except ValueError:
            raise ImageCorrupt(f"layer has a tar header whose {what} is not a number") from None
        if value < 0:
            raise ImageCorrupt(f"layer has a tar header with a negative {what}")
    return value


def _checksum(header: bytes) -> int:
    return sum(header) - sum(header[148:156]) + 8 * 32


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """The records of a PAX extended header; raises ImageCorrupt where a length lies."""
    records: dict[bytes, bytes] = {}
    while data:
        length_text, space, _ = data.partition(b" ")
        if not space or not length_text.isdigit() or len(length_text) > 10:
            raise ImageCorrupt("layer has a malformed PAX header")
        length = int(length_text)
        record = data[len(length_text) + 1 : length]
        key, equals, value = record.partition(b"=")
        if length > len(data) or not equals or not value.endswith(b"\n"):
            raise ImageCorrupt("layer has a malformed PAX header")
        records[key] = value[:-1]
        data = data[length:]
    return records


class TarFilter:
    """Feed a tar stream, get the stream for the unpacking child.

    Left out: device nodes (a container gets its /dev from the runtime; a char 0:0 would be a smuggled whiteout) and
    global PAX headers. Refused: sparse files, unknown types, wrong checksums, lying sizes, and streams
    beyond the limits.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._meta = bytearray()  # headers that belong to the next entry, withheld until it is known
        self._meta_left = 0  # bytes of a PAX header or long name still to come, with padding
        self._meta_type = 0
        self._meta_size = 0
        self._pax: dict[bytes, bytes] = {}
        self._data_left = 0  # bytes of file data still to come, with padding
        self._keep = True
        self._ended = False
        self.entries = 0
        self.dropped = 0
        self.bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take the next bytes of the archive; yield what tar should see."""
        self.bytes += len(data)
        if self.bytes > self._limits.max_bytes:
            raise ImageCorrupt(f"layer is larger than {self._limits.max_bytes} bytes when unpacked")
        if self._ended:
            return  # whatever follows the end is part of the digest only
        view = memoryview(data)
        while len(view):
            if self._data_left:
                taken = view[: self._data_left]
                self._data_left -= len(taken)
                view = view[len(taken) :]
                if self._keep:
                    yield bytes(taken)
                continue
            wanted = self._meta_left or BLOCK
            taken = view[: wanted - len(self._buffer)]
            self._buffer += taken
            view = view[len(taken) :]
            if len(self._buffer) < wanted:
                return
            block = bytes(self._buffer)
            self._buffer.clear()
            if self._meta_left:
                self._meta_left = 0
                self._meta_body(block)
                continue
            out = self._header(block)
            if out:
                yield out
            if self._ended:
                return

    def finish(self) -> bytes:
        """The end of the archive for tar. A missing end marker is tolerated, a cut entry is not."""
        if not self._ended and (self._data_left or self._buffer or self._meta_left or self._meta):
            raise ImageCorrupt("layer is truncated: its tar archive ends inside an entry")
        return _ZEROS * 2

    def _meta_body(self, body: bytes) -> None:
        content = body[: self._meta_size]
        if self._meta_type == ord("g"):
            return
        if self._meta_type == ord("x"):
            self._pax = parse_pax(content)
            if any(key.startswith(b"GNU.sparse.") for key in self._pax):
                raise ImageCorrupt("layer has a sparse file, which is not supported")
        self._meta += body
        if len(self._meta) > 2 * _MAX_META:
            raise ImageCorrupt("layer has too many extended headers for one entry")

    def _header(self, header: bytes) -> bytes:
        if header == _ZEROS:
            self._ended = True
            if self._meta:
                raise ImageCorrupt("layer is truncated: its tar archive ends inside an entry")
            return b""
        stored = _number(header[148:156], "checksum")
        if stored != _checksum(header):
            raise ImageCorrupt("layer is not a tar archive, or has a tar header with a wrong checksum")
        kind = header[156]
        size = _number(header[124:136], "size")
        if kind in b"xgLK":
            if size > _MAX_META:
                raise ImageCorrupt(f"layer has an extended header of {size} bytes")
            self._meta_type, self._meta_size = kind, size
            self._meta_left = -(-size // BLOCK) * BLOCK
            if kind != ord("g"):
                self._meta += header
            return b""
        return self._entry(header, kind, size)

    def _entry(self, header: bytes, kind: int, size: int) -> bytes:
        self.entries += 1
        if self.entries > self._limits.max_entries:
            raise ImageCorrupt(f"layer has more than {self._limits.max_entries} entries")
        override = self._pax.get(b"size")
        if override is not None:
            if not override.isdigit() or len(override) > 19:
                raise ImageCorrupt("layer has a PAX header with a bad size")
            size = int(override)
        if kind in _EMPTY:
            if size and (override is not None or kind != _HARDLINK):
                raise ImageCorrupt("layer has a link, directory or device with data")
            size = 0  # a hard link may repeat its target's size in the header; no data follows
        elif kind not in _REGULAR:
            raise ImageCorrupt(f"layer has a tar entry of unsupported type {chr(kind)!r}")
        if size > self._limits.max_bytes:
            raise ImageCorrupt(f"layer has a file of {size} bytes, more than {self._limits.max_bytes}")
        self._keep = kind not in _DEVICES
        self.dropped += not self._keep
        self._data_left = -(-size // BLOCK) * BLOCK
        out = bytes(self._meta) + header if self._keep else b""
        self._meta.clear()
        self._pax = {}
        return out
