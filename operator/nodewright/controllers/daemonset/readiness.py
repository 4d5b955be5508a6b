"""Node readiness: which startup taints there are, who waits for whom, and when a taint may go. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec

from nodewright.controllers.daemonset import availability
from nodewright.controllers.daemonset.eligibility import judge
from nodewright.controllers.daemonset.model import DaemonSet, Node, NodeSpec, Pod, Revision, Template
from nodewright.controllers.daemonset.model import Meta as RevisionMeta
from nodewright.controllers.daemonset.owntaints import STARTUP_PREFIX, OwnTaints, startup_key, startup_name
from nodewright.controllers.daemonset.view import View
from nodewright.kube.objects import Taint
from nodewright.kube.times import seconds_since

# Taints that go by themselves once a node is up. They do not mean that a DaemonSet has no business there.
_PASSING_PREFIXES = (
    STARTUP_PREFIX,
    "node.kubernetes.io/",
    "node.cloudprovider.kubernetes.io/",
    "startup-taint.cluster-autoscaler.kubernetes.io/",
    "readiness.k8s.io/",
)
_PASSING_SUFFIXES = ("/agent-not-ready", "/uninitialized")  # what CSI and CNI drivers, and Cluster API, call theirs
_PASSING_KEYS = ("karpenter.sh/unregistered",)


class Order(msgspec.Struct, frozen=True):
    """All DaemonSets with nodeReadiness, as they wait for each other. Keys are `namespace/name` unless told otherwise.

    `own` tells how each treats startup taints, `owners` whose a taint key is, `effects` the taints that new nodes get
    (name after the prefix -> effect), `circular` the names in `after` that are ignored since they wait in turn.
    """

    own: Mapping[str, OwnTaints] = msgspec.field(default_factory=dict)
    owners: Mapping[str, str] = msgspec.field(default_factory=dict)
    effects: Mapping[str, str] = msgspec.field(default_factory=dict)
    circular: Mapping[str, tuple[str, ...]] = msgspec.field(default_factory=dict)


def has_readiness(ds: DaemonSet | None) -> bool:
    """Whether new nodes wait for this DaemonSet. One that is being deleted makes no pods any more."""
    return ds is not None and ds.spec.node_readiness is not None and ds.metadata.deletion_timestamp is None


def order(daemonsets: Iterable[DaemonSet]) -> Order:
    """The order among the DaemonSets that have nodeReadiness."""
    holding = {ds.key: ds for ds in daemonsets if has_readiness(ds)}
    after = {key: [other for other in _after(ds) if other in holding] for key, ds in holding.items()}
    reach = {key: _reachable(key, after) for key in holding}
    circular = {
        key: tuple(other for other in others if key in reach[other] or key == other) for key, others in after.items()
    }
    keys = {key: startup_key(ds.metadata.namespace, ds.metadata.name) for key, ds in holding.items()}
    own: dict[str, OwnTaints] = {}
    for key, others in after.items():
        waits_for = frozenset(keys[other] for other in others if other not in circular[key])
        known = tuple(sorted(value for value in keys.values() if value not in waits_for))
        own[key] = OwnTaints(startup=True, waits_for=waits_for, drain=True, known=known)
    return Order(
        own=own,
        owners={taint: key for key, taint in keys.items()},
        effects={
            startup_name(ds.metadata.namespace, ds.metadata.name): ds.spec.node_readiness.effect
            for ds in holding.values()
            if ds.spec.node_readiness is not None
        },
        circular={key: others for key, others in circular.items() if others},
    )


def _after(ds: DaemonSet) -> list[str]:
    """Keys of the DaemonSets that are to be ready before; a bare name is of the same namespace."""
    readiness = ds.spec.node_readiness
    names = readiness.after if readiness is not None else []
    return [name if "/" in name else f"{ds.metadata.namespace}/{name}" for name in names]


def _reachable(start: str, after: Mapping[str, list[str]]) -> set[str]:
    """What is waited for directly or through others; `start` itself is in it only where there is a circle."""
    found: set[str] = set()
    todo = list(after[start])
    while todo:
        key = todo.pop()
        if key not in found:
            found.add(key)
            todo += after[key]
    return found


def is_passing(taint: Taint) -> bool:
    """Whether a taint is one that nodes have for a while only, by what is known of such taints."""
    key = taint.key
    return key.startswith(_PASSING_PREFIXES) or key.endswith(_PASSING_SUFFIXES) or key in _PASSING_KEYS


def wants(template: Template, node: Node) -> bool:
    """Whether a DaemonSet is to have a pod on the node, now or once the taints of its start are gone."""
    lasting = [taint for taint in node.spec.taints if not is_passing(taint)]
    settled = msgspec.structs.replace(node, spec=NodeSpec(taints=lasting))
    return judge(template, settled, OwnTaints(startup=True, drain=True)).should_run


class Release(msgspec.Struct, frozen=True):
    """A startup taint that may go, and why: the DaemonSet's key and its available pod, where there are such."""

    key: str
    owner: str = ""
    pod: str = ""


class Held(msgspec.Struct, frozen=True):
    """A startup taint that stays; `retry_after` is when it may go without any further change (seconds)."""

    key: str
    owner: str
    retry_after: float | None = None


def review(
    taint: Taint, ds: DaemonSet | None, template: Template | None, node: Node, pods: Iterable[Pod], now: datetime
) -> Release | Held:
    """Whether a startup taint may go. `ds` is its owner, with its template, and `pods` those of the owner on the node.

    It goes when no DaemonSet stands behind it, when its DaemonSet does not want the node, or when the pod is available.
    """
    if ds is None or template is None or not has_readiness(ds):
        return Release(taint.key)
    if not wants(template, node):
        return Release(taint.key, ds.key)
    view = _moment(ds, now)
    retry: float | None = None
    for pod in pods:
        if pod.deleting or pod.spec.node_name != node.metadata.name:
            continue
        if availability.is_available(view, pod):
            return Release(taint.key, ds.key, pod.key)
        if since := availability.ready_since(view, pod):
            # Ready, but not for long enough; no event will tell when it is.
            left = ds.spec.min_ready_seconds - seconds_since(since, now) + 0.01
            retry = left if retry is None else min(retry, left)
    return Held(taint.key, ds.key, retry)


def removal(taints: list[Taint], keys: Iterable[str]) -> list[dict[str, object]]:
    """A JSON patch that takes away the taints with these keys and nothing else.

    Each is tested before it is removed, so a list that somebody has changed meanwhile is refused or left as it should
    be, and no change of others is ever lost.
    """
    gone = set(keys)
    patch: list[dict[str, object]] = []
    for index in range(len(taints) - 1, -1, -1):
        if taints[index].key in gone:
            path = f"/spec/taints/{index}"
            patch.append({"op": "test", "path": f"{path}/key", "value": taints[index].key})
            patch.append({"op": "remove", "path": path})
    return patch


def _moment(ds: DaemonSet, now: datetime) -> View:
    """A view that holds what availability depends on, and nothing else."""
    nothing = Revision(metadata=RevisionMeta())
    return View(ds=ds, update=nothing, revisions={}, nodes={}, verdicts={}, pods={}, now=now)
