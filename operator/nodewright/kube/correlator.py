"""Which events are worth sending: client-go's EventCorrelator, and the series rules of events.k8s.io. Pure."""

from __future__ import annotations

import copy
from collections import OrderedDict
from enum import Enum
from typing import Generic, TypeVar

import msgspec

from nodewright.kube.api.events import Event, EventSeries, EventV1
from nodewright.kube.ratelimit import TokenBucket

MAX_ENTRIES = 4096
MAX_SIMILAR = 10
SIMILAR_WINDOW = 600.0  # seconds
SPAM_BURST = 25
SPAM_RATE = 1.0 / 300.0
SERIES_FINISH = 360.0  # a series without news for so long is over
COMBINED = "(combined from similar events): "

V = TypeVar("V")


class Verdict(Enum):
    """What to do with an event."""

    CREATE = "create"
    PATCH = "patch"
    SKIP = "skip"


class _Lru(Generic[V]):
    """A mapping that forgets what was used longest ago."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[tuple[str, ...], V] = OrderedDict()

    def get(self, key: tuple[str, ...]) -> V | None:
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        return None

    def put(self, key: tuple[str, ...], value: V) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)


class _Similar(msgspec.Struct):
    messages: dict[str, None]
    last: float


class _Observed(msgspec.Struct):
    count: int
    first_timestamp: str | None
    name: str


class Correlator:
    """For core/v1 events. Equal ones are counted; more than ten that differ in their message only are combined into
    one; and one object may cause 25 events at once, then one in five minutes.
    """

    def __init__(self) -> None:
        """Start with no memory."""
        self._similar: _Lru[_Similar] = _Lru(MAX_ENTRIES)
        self._observed: _Lru[_Observed] = _Lru(MAX_ENTRIES)
        self._buckets: _Lru[TokenBucket] = _Lru(MAX_ENTRIES)

    def correlate(self, event: Event, now: float) -> tuple[Verdict, Event]:
        """Decide about an event that was seen at `now` (seconds of any steady clock); gives what to send."""
        event = copy.copy(event)
        key = self._combine(event, now)
        verdict = self._count(event, key)
        return (Verdict.SKIP if self._is_spam(event, now) else verdict), event

    def _combine(self, event: Event, now: float) -> tuple[str, ...]:
        about = _about(event)
        group = (*about, event.reason, event.reporting_component, event.reporting_instance)
        similar = self._similar.get(group)
        if similar is None or now - similar.last > SIMILAR_WINDOW:
            similar = _Similar({}, now)
        similar.messages[event.message] = None
        similar.last = now
        self._similar.put(group, similar)
        if len(similar.messages) < MAX_SIMILAR:
            return (*about, event.involved_object.field_path, event.reason, event.message)
        similar.messages.popitem()  # keeps the set from growing; which message goes does not matter
        event.message = COMBINED + event.message
        return group

    def _count(self, event: Event, key: tuple[str, ...]) -> Verdict:
        seen = self._observed.get(key)
        if seen is not None:
            event.metadata = copy.copy(event.metadata)
            event.metadata.name = seen.name
            event.first_timestamp = seen.first_timestamp
            event.count = seen.count + 1
        self._observed.put(key, _Observed(event.count, event.first_timestamp, event.metadata.name))
        return Verdict.CREATE if seen is None else Verdict.PATCH

    def _is_spam(self, event: Event, now: float) -> bool:
        key = _about(event)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = TokenBucket(SPAM_RATE, SPAM_BURST, now)
        self._buckets.put(key, bucket)
        return not bucket.try_take(now)


def _about(event: Event) -> tuple[str, ...]:
    ref = event.involved_object
    source = event.source
    return (source.component, source.host, ref.kind, ref.namespace, ref.name, ref.uid, ref.api_version, event.type)


class _Running(msgspec.Struct):
    event: EventV1
    last: float
    sent: int  # the count that the API server knows


class SeriesCorrelator:
    """For events.k8s.io/v1. The second equal event (whatever its note) starts a series; later ones are only counted,
    and `finished` gives what has to be written when a series has had no news for six minutes.
    """

    def __init__(self) -> None:
        """Start with no memory."""
        self._running: OrderedDict[tuple[str, ...], _Running] = OrderedDict()

    def __len__(self) -> int:
        """Count the events that may still become or go on as a series."""
        return len(self._running)

    def correlate(self, event: EventV1, now: float) -> tuple[Verdict, EventV1]:
        """Decide about an event that was seen at `now`; gives what to send."""
        key = _series_key(event)
        running = self._running.get(key)
        if running is None or now - running.last > SERIES_FINISH:
            self._running[key] = _Running(event, now, 1)
            self._running.move_to_end(key)
            if len(self._running) > MAX_ENTRIES:
                self._running.popitem(last=False)
            return Verdict.CREATE, event
        running.last = now
        self._running.move_to_end(key)
        series = running.event.series
        if series is None:
            running.event.series = EventSeries(2, event.event_time)
            running.sent = 2
            return Verdict.PATCH, copy.copy(running.event)
        running.event.series = EventSeries(series.count + 1, event.event_time)
        return Verdict.SKIP, running.event

    def finished(self, now: float) -> list[EventV1]:
        """Forget what had no news for six minutes, and give the series whose last count was not written yet."""
        unsent: list[EventV1] = []
        for key, running in list(self._running.items()):
            if now - running.last <= SERIES_FINISH:
                break  # ordered by last news
            del self._running[key]
            if running.event.series is not None and running.event.series.count > running.sent:
                unsent.append(running.event)
        return unsent


def _series_key(event: EventV1) -> tuple[str, ...]:
    key = [event.type, event.action, event.reason, event.reporting_controller, event.reporting_instance]
    for ref in (event.regarding, event.related):
        key += [ref.kind, ref.namespace, ref.name, ref.uid, ref.api_version] if ref is not None else [""]
    return tuple(key)
