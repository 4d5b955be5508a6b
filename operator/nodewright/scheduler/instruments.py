"""Counters, gauges and histograms that cost a fraction of a microsecond, exposed through prometheus_client's registry.

prometheus_client's own take locks for threads that do not exist here, and look labels up under them: with a dozen
observations per Pod that was a tenth of a decision. These are for one thread, the event loop's, which also serves them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

I = TypeVar("I")  # noqa: E741 - the kind of instrument

Labels = tuple[str, ...]


class Counter:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Count."""
        self.value += amount


class Histogram:
    """How often observations fell into which bucket, and their sum. `bounds` are inclusive upper ends, ascending."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by the text of their bound, as they are exposed."""
        found, so_far = [], 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            so_far += count
            found.append((_as_go(bound), float(so_far)))
        return found


class Family(Collector, Generic[I]):
    """Instruments of one name, by label values. Registers itself."""

    def __init__(self, name: str, text: str, labels: Labels, make: Callable[[], I]) -> None:
        self._name, self._text, self._labels, self._make = name, text, labels, make
        self._children: dict[Labels, I] = {}
        REGISTRY.register(self)

    def labels(self, *values: str) -> I:
        """The instrument for these values, in the order of the names. Keep it where it is used often."""
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self._labels):
                raise ValueError(f"{self._name} has the labels {self._labels}")
            child = self._children[values] = self._make()
        return child

    def children(self) -> Iterator[tuple[Labels, I]]:
        """All instruments there are, with their label values."""
        return iter(list(self._children.items()))

    def describe(self) -> Iterable[Metric]:
        """The name, for the registry to see that nobody else has it."""
        return [Metric(self._name, self._text, "untyped")]

    def collect(self) -> Iterable[Metric]:
        """What is exposed; see the subclasses."""
        raise NotImplementedError


class Counters(Family[Counter]):
    """Counters; `name` ends in `_total`, as upstream's do."""

    def __init__(self, name: str, text: str, labels: Labels = ()) -> None:
        super().__init__(name, text, labels, Counter)

    def collect(self) -> Iterable[Metric]:
        """The present values."""
        family = CounterMetricFamily(self._name, self._text, labels=self._labels)
        for values, child in self.children():
            family.add_metric(values, child.value)
        return [family]


class Histograms(Family[Histogram]):
    """Histograms with the same bounds."""

    def __init__(self, name: str, text: str, labels: Labels = (), *, bounds: Sequence[float]) -> None:
        super().__init__(name, text, labels, lambda: Histogram(bounds))

    def collect(self) -> Iterable[Metric]:
        """The present counts."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, child in self.children():
            family.add_metric(values, child.buckets(), child.total)
        return [family]


class Gauges(Collector):
    """Numbers that are asked for when somebody looks. The last `watch` counts."""

    def __init__(self, name: str, text: str, labels: Labels = ()) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._read: Callable[[], Mapping[Any, float]] = dict
        REGISTRY.register(self)

    def watch(self, read: Callable[[], Mapping[Any, float]]) -> None:
        """Expose what `read` gives, by tuples of label values."""
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """The name, for the registry to see that nobody else has it."""
        return [Metric(self._name, self._text, "gauge")]

    def collect(self) -> Iterable[Metric]:
        """The numbers of this moment."""
        family = GaugeMetricFamily(self._name, self._text, labels=self._labels)
        for values, number in self._read().items():
            family.add_metric(values, number)
        return [family]


def _as_go(bound: float) -> str:
    """A bound as kube-scheduler writes it: `1`, not `1.0`, so that queries that name buckets go on working."""
    return "+Inf" if bound == float("inf") else repr(bound).removesuffix(".0")


def exponential(start: float, factor: float, count: int) -> tuple[float, ...]:
    """Bounds that grow by a factor, computed as upstream's are."""
    bounds = [start]
    while len(bounds) < count:
        bounds.append(bounds[-1] * factor)
    return tuple(bounds)
