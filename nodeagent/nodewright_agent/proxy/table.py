"""The desired table, kept up to date by recomputing only what changed. Pure.

The result depends only on the Services, slices and node that are present, never on the order in which they came:
`tests/unit/proxy` holds it against a table computed from scratch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nodewright_agent.proxy.model import Delta, Frontend, Table
from nodewright_agent.proxy.objects import EndpointSlice, Service
from nodewright_agent.proxy.services import EMPTY, HealthCheck, NodeView, ServiceRules, rules_of


class TableBuilder:
    """Holds the objects seen, the table they make, and the difference since it was last taken."""

    def __init__(self, node: NodeView) -> None:
        """Begin with an empty table."""
        self._node = node
        self._services: dict[str, Service] = {}
        self._slices: dict[str, dict[str, EndpointSlice]] = {}
        self._dirty: set[str] = set()
        self._rules: dict[str, ServiceRules] = {}
        self._claims: dict[bytes, tuple[str, ...]] = {}
        self._frontends: dict[bytes, Frontend] = {}
        self._health_checks: dict[str, HealthCheck] = {}
        self._cluster_ips = _Counted()
        self._local_ips = _Counted()
        self._changed: dict[bytes, Frontend | None] = {}

    @property
    def node(self) -> NodeView:
        """The node as it is assumed."""
        return self._node

    @property
    def dirty(self) -> bool:
        """Whether `take` would recompute something."""
        return bool(self._dirty)

    @property
    def size(self) -> tuple[int, int]:
        """How many Services and slices are held."""
        return len(self._services), sum(map(len, self._slices.values()))

    def set_node(self, node: NodeView) -> None:
        """Take over a change of the node; it concerns every Service."""
        if node != self._node:
            self._node = node
            self._dirty.update(self._services)

    def set_service(self, key: str, service: Service | None) -> None:
        """Add, replace or (None) remove a Service."""
        if service is None:
            self._services.pop(key, None)
        else:
            self._services[key] = service
        self._dirty.add(key)

    def set_slice(self, key: str, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """Add, replace or (None) remove a slice; its label may have moved it to another Service."""
        before = old.service_key if old is not None else None
        after = new.service_key if new is not None else None
        if before is not None and before != after:
            self._drop_slice(before, key)
        if after is not None and new is not None:
            self._slices.setdefault(after, {})[key] = new
            self._dirty.add(after)

    def _drop_slice(self, service: str, key: str) -> None:
        slices = self._slices.get(service)
        if slices is not None:
            slices.pop(key, None)
            if not slices:
                del self._slices[service]
        self._dirty.add(service)

    def slices_of(self, service: str) -> list[EndpointSlice]:
        """Give the slices of a Service (`namespace/name`), sorted by name."""
        return [value for _, value in sorted(self._slices.get(service, {}).items())]

    def rules_of(self, service: str) -> ServiceRules:
        """Give what a Service (`namespace/name`) last added to the table."""
        return self._rules.get(service, EMPTY)

    def take(self) -> Delta:
        """Recompute what is dirty, and give the difference since the last call."""
        for key in self._dirty:
            self._recompute(key)
        self._dirty.clear()
        changed, self._changed = self._changed, {}
        cluster_added, cluster_removed = self._cluster_ips.take()
        local_added, local_removed = self._local_ips.take()
        return Delta(changed, cluster_added, cluster_removed, local_added, local_removed)

    def table(self) -> Table:
        """Give the whole table, as of the last `take`."""
        return Table(dict(self._frontends), self._cluster_ips.present(), self._local_ips.present())

    def _recompute(self, key: str) -> None:
        old = self._rules.get(key, EMPTY)
        service = self._services.get(key)
        new = rules_of(service, self.slices_of(key), self._node) if service is not None else EMPTY
        if new == old:
            return
        if service is None:
            self._rules.pop(key, None)
        else:
            self._rules[key] = new
        if new.health_check is None:
            self._health_checks.pop(key, None)
        else:
            self._health_checks[key] = new.health_check
        for frontend in old.frontends:
            if frontend not in new.frontends:
                self._disclaim(frontend, key)
        for frontend, value in new.frontends.items():
            if old.frontends.get(frontend) != value:
                self._claim(frontend, key)
        self._cluster_ips.change(old.cluster_ips, new.cluster_ips)
        self._local_ips.change(old.local_ips, new.local_ips)

    def _claim(self, frontend: bytes, key: str) -> None:
        claims = self._claims.get(frontend, ())
        self._settle(frontend, claims if key in claims else (*claims, key))

    def _disclaim(self, frontend: bytes, key: str) -> None:
        self._settle(frontend, tuple(claim for claim in self._claims.get(frontend, ()) if claim != key))

    def _settle(self, frontend: bytes, claims: tuple[str, ...]) -> None:
        """Two Services may name the same external address and port: a fixed order decides, not who came first."""
        if not claims:
            self._claims.pop(frontend, None)
            if self._frontends.pop(frontend, None) is not None:
                self._changed[frontend] = None
            return
        self._claims[frontend] = claims
        winner = min((self._rules[claim].frontends[frontend].kind, claim) for claim in claims)[1]
        value = self._rules[winner].frontends[frontend]
        if self._frontends.get(frontend) != value:
            self._frontends[frontend] = value
            self._changed[frontend] = value

    @property
    def health_checks(self) -> dict[str, HealthCheck]:
        """The health checks by Service (`namespace/name`), as of the last `take`."""
        return self._health_checks

    def owners(self) -> dict[bytes, str]:
        """Give the service port (`namespace/name:port`) behind each frontend, as of the last `take`."""
        return {key: frontend.owner for key, frontend in self._frontends.copy().items()}

    def conflicts(self) -> dict[bytes, tuple[str, ...]]:
        """Give the frontends that more than one Service claims, with the claimants."""
        return {frontend: claims for frontend, claims in self._claims.items() if len(claims) > 1}


class _Counted:
    """A set whose members are each there for one or more Services, with the difference since it was last taken."""

    def __init__(self) -> None:
        self._count: dict[bytes, int] = {}
        self._touched: dict[bytes, bool] = {}

    def change(self, old: frozenset[bytes], new: frozenset[bytes]) -> None:
        for item in new - old:
            self._add(item, 1)
        for item in old - new:
            self._add(item, -1)

    def _add(self, item: bytes, step: int) -> None:
        before = self._count.get(item, 0)
        after = before + step
        self._touched.setdefault(item, before > 0)
        if after:
            self._count[item] = after
        else:
            del self._count[item]

    def take(self) -> tuple[frozenset[bytes], frozenset[bytes]]:
        touched, self._touched = self._touched, {}
        added = frozenset(item for item, was in touched.items() if not was and item in self._count)
        removed = frozenset(item for item, was in touched.items() if was and item not in self._count)
        return added, removed

    def present(self) -> frozenset[bytes]:
        return frozenset(self._count)


def table_from_scratch(
    services: Iterable[Service], slices: Mapping[str, Sequence[EndpointSlice]], node: NodeView
) -> Table:
    """Compute the table of these Services and their slices (by `namespace/name` of the Service)."""
    builder = TableBuilder(node)
    for service in services:
        builder.set_service(service.key, service)
    for items in slices.values():
        for item in items:
            builder.set_slice(item.key, None, item)
    builder.take()
    return builder.table()
