"""Bytes on their way from a client to whoever takes them, bounded: who is ahead waits."""

from __future__ import annotations

import asyncio
from typing import Protocol

LIMIT = 256 << 10


class Source(Protocol):
    """Where bytes come from."""

    async def read(self) -> bytes:
        """What came next; empty at the end."""
        ...


class Sink(Protocol):
    """Where bytes go to."""

    async def write(self, data: bytes) -> None:
        """Hand on; waits while the other side takes nothing. Raises ConnectionError when it is gone."""
        ...


class Inbox:
    """What a client sends on one of its streams."""

    def __init__(self, limit: int = LIMIT) -> None:
        """``limit``: bytes that may wait before ``put`` does."""
        self._chunks: list[bytes] = []
        self._size, self._limit = 0, limit
        self._ended, self._deaf = False, False
        self._news, self._room = asyncio.Event(), asyncio.Event()

    async def put(self, data: bytes) -> None:
        """Add; waits while there is too much. What comes after the end, or after ``discard``, is dropped."""
        if self._deaf or self._ended or not data:
            return
        self._chunks.append(data)
        self._size += len(data)
        self._news.set()
        while self._size >= self._limit and not self._deaf:
            self._room.clear()
            await self._room.wait()

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return self._ended

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._news.set()

    def discard(self) -> None:
        """Drop what there is and what comes: nobody reads it."""
        self._deaf = self._ended = True
        self._chunks.clear()
        self._size = 0
        self._room.set()
        self._news.set()

    async def read(self) -> bytes:
        """What came next; empty at the end."""
        while not self._chunks and not self._ended:
            self._news.clear()
            await self._news.wait()
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._size = 0
        self._room.set()
        return data
