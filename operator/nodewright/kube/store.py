"""The content of a watch cache: objects by key, and indexes over them. Pure; knows no server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from nodewright.kube.codec import key_of, resource_version_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

IndexFunction = Callable[[T], Iterable[Hashable]]
Change = tuple[T | None, T | None]
"""(old, new); None stands for absent."""


class Store(Generic[T]):
    """Objects by key. Changes come back as (old, new) pairs, for the handlers."""

    def __init__(self, indexes: Mapping[str, IndexFunction[T]]) -> None:
        """Take the index functions by name."""
        self._objects: dict[str, T] = {}
        self._functions = dict(indexes)
        self._indexes: dict[str, dict[Hashable, dict[str, T]]] = {name: {} for name in indexes}

    def __len__(self) -> int:
        """Count the objects."""
        return len(self._objects)

    def get(self, key: str) -> T | None:
        """Give the object of a key."""
        return self._objects.get(key)

    def keys(self) -> Collection[str]:
        """Give a live view of the keys."""
        return self._objects.keys()

    def values(self) -> Collection[T]:
        """Give a live view of the objects."""
        return self._objects.values()

    def by_index(self, index: str, value: Hashable) -> Collection[T]:
        """Give a live view of the objects with this value in an index."""
        found = self._indexes[index].get(value)
        return found.values() if found is not None else ()

    def put(self, obj: T) -> list[Change[T]]:
        """Take in an object. The same resourceVersion again is no change; another UID is a deletion and an addition."""
        key = key_of(obj)
        old = self._objects.get(key)
        if old is not None:
            if _same_version(old, obj):
                return []
            self._unindex(key, old)
        self._objects[key] = obj
        self._index(key, obj)
        return list(_changes(old, obj))

    def remove(self, key: str, last: T) -> list[Change[T]]:
        """Take out an object; `last` is its last state, as the DELETED event brought it."""
        old = self._objects.pop(key, None)
        if old is None:
            return []
        self._unindex(key, old)
        # When the deleted object is not the one that was known, its creation was never seen: the old one ended.
        return [(last if _uid(last) == _uid(old) else old, None)]

    def replace(self, objects: Iterable[T], keep: Collection[str] = ()) -> list[Change[T]]:
        """Take in a whole list at once; what it lacks is gone, but for the keys to keep. Deletions come first."""
        before = self._objects
        after = {key_of(obj): obj for obj in objects}
        for key in keep:
            if key in before and key not in after:
                after[key] = before[key]
        self._objects = after
        for index in self._indexes.values():
            index.clear()
        for key, obj in after.items():
            self._index(key, obj)
        changes: list[Change[T]] = [(old, None) for key, old in before.items() if key not in after]
        for key, obj in after.items():
            old = before.get(key)
            if old is None or not _same_version(old, obj):
                changes.extend(_changes(old, obj))
        return changes

    def _index(self, key: str, obj: T) -> None:
        for name, function in self._functions.items():
            index = self._indexes[name]
            for value in self._values(name, function, obj):
                index.setdefault(value, {})[key] = obj

    def _unindex(self, key: str, obj: T) -> None:
        for name, function in self._functions.items():
            index = self._indexes[name]
            for value in self._values(name, function, obj):
                entry = index.get(value)
                if entry is not None:
                    entry.pop(key, None)
                    if not entry:
                        del index[value]

    def _values(self, name: str, function: IndexFunction[T], obj: T) -> Iterable[Hashable]:
        try:
            return tuple(function(obj))
        except Exception:
            # One odd object must not stop the cache for all others.
            logger.exception("index %s failed on %s", name, key_of(obj))
            return ()


def _changes(old: T | None, new: T) -> Iterator[Change[T]]:
    if old is not None and _uid(old) != _uid(new):
        yield old, None
        yield None, new
    else:
        yield old, new


def _uid(obj: Any) -> str:
    if isinstance(obj, dict):
        return str((obj.get("metadata") or {}).get("uid") or "")
    return str(getattr(obj.metadata, "uid", ""))


def _same_version(old: Any, new: Any) -> bool:
    version = resource_version_of(new)
    return version != "" and version == resource_version_of(old)
