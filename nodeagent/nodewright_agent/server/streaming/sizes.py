"""Sizes of a client's terminal, as its resize channel tells them."""

from __future__ import annotations

import json

from nodewright_agent.server.streaming.flow import Source

_LARGEST = 4096
_DECODER = json.JSONDecoder()


class Sizes:
    """Reads JSON objects ``{"Width": 80, "Height": 24}``, one after the other. A flood of them is one change."""

    def __init__(self, source: Source) -> None:
        """Take the channel."""
        self._source, self._text = source, ""

    async def next(self) -> tuple[int, int] | None:
        """The newest size once there is one; None at the end, also when what came is no such object."""
        while data := await self._source.read():
            self._text += data.decode(errors="replace")
            try:
                found, self._text = latest(self._text)
            except ValueError:
                return None
            if found is not None:
                return found
            if len(self._text) > _LARGEST:
                return None
        return None


def latest(text: str) -> tuple[tuple[int, int] | None, str]:
    """The last complete size, if there is one, and what may be the beginning of another. Raises ValueError. Pure."""
    found, text = None, text.lstrip()
    while text:
        if not text.startswith("{"):
            raise ValueError("not an object")
        if "}" not in text:
            break
        try:
            size, end = _DECODER.raw_decode(text)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        width, height = size.get("Width", 0), size.get("Height", 0)
        if not all(isinstance(one, int) and 0 <= one < 1 << 16 for one in (width, height)):
            raise ValueError("not a terminal's size")
        if width and height:
            found = (width, height)
        text = text[end:].lstrip()
    return found, text
