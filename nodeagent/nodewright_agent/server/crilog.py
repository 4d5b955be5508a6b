"""The CRI log format: one line per piece of output, `<RFC 3339 time> <stdout|stderr> <P|F>[:tags] <text>`. Pure.

A piece tagged P is the start of a longer line; the pieces up to the next F make that line.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from nodewright.kube import times


class Entry(msgspec.Struct, gc=False):
    """One piece; `text` ends with a line feed unless it is partial."""

    time: str
    stream: str
    text: bytes
    partial: bool


def parse(line: bytes) -> Entry | None:
    """Read one line of the file, with or without its line feed; None when it is not of this format."""
    parts = line.rstrip(b"\n").split(b" ", 3) if line.endswith(b"\n") else line.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        return None
    time, stream, tags = parts[0], parts[1], parts[2]
    partial = tags.split(b":")[0] == b"P"
    text = parts[3] if len(parts) == 4 else b""
    try:
        return Entry(time.decode("ascii"), stream.decode("ascii"), text if partial else text + b"\n", partial)
    except UnicodeDecodeError:
        return None


class Renderer:
    """Turns the file's lines into what the client gets: since, stream, timestamps and the byte limit applied."""

    def __init__(
        self,
        *,
        since: datetime | None = None,
        timestamps: bool = False,
        limit_bytes: int | None = None,
        stream: str = "All",
    ) -> None:
        """Take the options of PodLogOptions that are about content; `stream` is All, Stdout or Stderr."""
        self._since = since
        self._timestamps = timestamps
        self._left = limit_bytes
        self._stream = None if stream == "All" else stream.lower()
        self._inside: set[str] = set()  # streams whose last piece was partial

    @property
    def full(self) -> bool:
        """Whether the byte limit is used up."""
        return self._left is not None and self._left <= 0

    def render(self, line: bytes) -> bytes:
        """Give what to send for one line of the file, nothing when it is left out or not of the format."""
        entry = parse(line)
        if entry is None or (self._stream is not None and entry.stream != self._stream):
            return b""
        continued = entry.stream in self._inside
        if entry.partial:
            self._inside.add(entry.stream)
        else:
            self._inside.discard(entry.stream)
        if self._since is not None:
            try:
                if times.parse_rfc3339(entry.time) < self._since:
                    return b""
            except ValueError:
                return b""
        data = entry.text
        if self._timestamps and not continued:
            data = fixed_nanos(entry.time).encode() + b" " + data
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        return data


def fixed_nanos(time: str) -> str:
    """Write a log's time with nine digits and Z for UTC, as kubelet does: `2016-10-06T00:17:09.669794202Z`."""
    zone = next((i for i in range(19, len(time)) if time[i] in "Z+-"), len(time))
    moment, fraction = time[:19], time[20:zone]
    offset = time[zone:]
    return f"{moment}.{fraction.ljust(9, '0')[:9]}{'Z' if offset in ('+00:00', '-00:00', '') else offset}"
