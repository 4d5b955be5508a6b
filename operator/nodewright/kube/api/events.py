"""Event in both of its groups: core/v1 and events.k8s.io/v1."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from nodewright.kube.api.base import KubeStruct
from nodewright.kube.api.meta import Object, ObjectMeta, ObjectReference


class EventSource(KubeStruct):
    """Who reported, in the old form."""

    component: str = ""
    host: str = ""


class EventSeries(KubeStruct):
    """How often an event has been seen; last_observed_time has microseconds."""

    count: int
    last_observed_time: str | None = None


class Event(Object):
    """A core/v1 Event."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Event"

    metadata: ObjectMeta
    involved_object: ObjectReference = msgspec.field(default_factory=ObjectReference)
    reason: str = ""
    message: str = ""
    source: EventSource = msgspec.field(default_factory=EventSource)
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    count: int = 0
    type: str = ""
    event_time: str | None = None
    series: EventSeries | None = None
    action: str = ""
    related: ObjectReference | None = None
    reporting_component: str = ""
    reporting_instance: str = ""


class EventV1(Object):
    """An events.k8s.io/v1 Event."""

    API_VERSION: ClassVar[str] = "events.k8s.io/v1"
    KIND: ClassVar[str] = "Event"

    metadata: ObjectMeta
    event_time: str | None = None
    regarding: ObjectReference = msgspec.field(default_factory=ObjectReference)
    reason: str = ""
    note: str = ""
    type: str = ""
    action: str = ""
    related: ObjectReference | None = None
    series: EventSeries | None = None
    reporting_controller: str = ""
    reporting_instance: str = ""
