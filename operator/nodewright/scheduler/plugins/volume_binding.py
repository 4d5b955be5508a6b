"""VolumeBinding: claims get their volumes where the Pod goes, and the Pod goes where its volumes are."""

from __future__ import annotations

import msgspec
import numpy as np

from nodewright.kube.client import Client

from ..arguments import Faults
from ..events import Event
from ..plugin import Context, FilterResult, Plugin, Reason, Rejected, Scope
from ..pods import PodInfo, PodPart
from ..state import ClusterState, NodeView
from ..state.arrays import BoolArray
from ..state.storage import Reservation, StorageState
from ..storage_objects import Claim
from .volume_claims import ClaimError, PodClaims, has_claims, pod_claims
from .volume_details import unbindable
from .volume_matching import NO_VOLUME, Matches, match_volumes, reachable, size_of
from .volume_prebind import bind_volumes
from .volume_provisioning import has_room, in_topology

REASON_AFFINITY = "node(s) didn't match PersistentVolume's node affinity"
REASON_NO_VOLUME = "node(s) didn't find available persistent volumes to bind"
REASON_NO_ROOM = "node(s) did not have enough free storage"
REASON_LOST = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"


class Args(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """VolumeBindingArgs: how long a binding may take."""

    bind_timeout_seconds: int = 600


class Answer:
    """What stands in the way of the Pod's claims per node, and what was found for the unbound ones."""

    def __init__(self, nodes: NodeView) -> None:
        self.unreached: BoolArray = np.zeros(len(nodes), dtype=np.bool_)
        self.no_volume: BoolArray = np.zeros(len(nodes), dtype=np.bool_)
        self.no_room: BoolArray = np.zeros(len(nodes), dtype=np.bool_)
        self.lost: BoolArray = np.zeros(len(nodes), dtype=np.bool_)
        # Claims that may get a volume that exists, with what `matches` found, and claims for which one is to be made.
        self.matched: list[Claim] = []
        self.matches = Matches([], [])
        self.provisioned: list[Claim] = []

    @property
    def ok(self) -> BoolArray:
        """Where nothing stands in the way."""
        return ~(self.unreached | self.no_volume | self.no_room | self.lost)


class VolumeBinding(Plugin):
    """Rejects nodes that cannot reach the Pod's volumes, or where unbound claims find none and none can be made.

    All of that is unresolvable: no eviction moves a volume. `reserve` sets the volumes aside that were found, so that
    no other Pod gets them; `pre_bind` tells the volume controller and the provisioner, and waits for them.
    """

    name = "VolumeBinding"
    scope = Scope.NODES
    reads = PodPart.SPEC
    events = (
        Event.STORAGE_CLASS
        | Event.CLAIM
        | Event.VOLUME
        | Event.NODE_ADD
        | Event.NODE_LABEL
        | Event.CSI_NODE
        | Event.CSI_DRIVER
        | Event.STORAGE_CAPACITY
    )
    args_type = Args

    def __init__(self, args: Args | None = None) -> None:
        self._timeout = (args or Args()).bind_timeout_seconds
        if self._timeout < 0:
            faults = Faults()
            faults.invalid("bindTimeoutSeconds", self._timeout, "should not be a negative value")
            faults.check()

    def shares(self, pod: PodInfo) -> bool:
        """Every Pod has claims of its own, or shares them in a way that counts."""
        return not has_claims(pod)

    def prepare(self, ctx: Context) -> Rejected | None:
        """Claims must exist and be whole; those that do not wait for a node must be bound."""
        if not ctx.pod.spec.volumes or not has_claims(ctx.pod):
            return None
        try:
            ctx.data[self.name] = pod_claims(ctx.nodes.state.storage, ctx.pod)
        except ClaimError as error:
            return Rejected(str(error))
        return None

    def filter(self, ctx: Context) -> FilterResult | None:
        """None for Pods without claims. A node may be rejected for several reasons."""
        claims: PodClaims | None = ctx.data.get(self.name)
        if claims is None:
            return None
        answer = _answer(ctx.nodes, claims)
        ok = answer.ok
        if ok.all():
            return None
        reasons = (
            Reason(REASON_AFFINITY, answer.unreached, True),
            Reason(REASON_NO_VOLUME, answer.no_volume, True),
            Reason(REASON_NO_ROOM, answer.no_room, True),
            Reason(REASON_LOST, answer.lost, True),
        )
        return FilterResult(ok, reasons)

    def detail(self, ctx: Context, position: int) -> list[str]:
        """Which claim, and what it would take."""
        return list(unbindable(ctx, position))

    def reserve(self, pod: PodInfo, node: str, state: ClusterState) -> None:
        """Set volumes aside for the Pod's claims, and mark claims whose volume is to be made for this node."""
        if not pod.spec.volumes or not has_claims(pod):
            return
        claims = pod_claims(state.storage, pod)
        if not claims.delayed:
            return
        answer = _answer(NodeView(state, np.array([state.rows[node]], dtype=np.intp)), claims)
        if not answer.ok[0]:
            raise ClaimError(f'the volumes of pod "{pod.key}" are not to be had on node "{node}" any more')
        bindings, provisions = {}, [claim.key for claim in answer.provisioned]
        for claim, picks in zip(answer.matched, answer.matches.picks, strict=True):
            if picks[0] != NO_VOLUME:
                bindings[claim.key] = answer.matches.volumes[int(picks[0])].key
            else:
                provisions.append(claim.key)
        state.storage.reserve(pod.uid, Reservation(node, bindings, provisions))

    def unreserve(self, pod: PodInfo, node: str, state: ClusterState) -> None:
        """Give back what no write has made real."""
        state.storage.release(pod.uid)

    def wants_pre_bind(self, pod: PodInfo) -> bool:
        """Only Pods with claims wait for anything."""
        return has_claims(pod)

    async def pre_bind(self, pod: PodInfo, node: str, state: ClusterState, client: Client) -> None:
        """Write what was decided, and wait until all claims are bound."""
        if pod.uid in state.storage.reservations:
            await bind_volumes(pod, node, state, client, self._timeout)


def _answer(nodes: NodeView, claims: PodClaims) -> Answer:
    storage = nodes.state.storage
    answer = Answer(nodes)
    _check_bound(nodes, storage, claims.bound, answer)
    for claim in claims.delayed:
        selected = storage.selected_node(claim)
        if selected is None:
            answer.matched.append(claim)
        else:
            # A volume is being made for that node already.
            answer.provisioned.append(claim)
            answer.no_volume |= ~nodes.positions_of({selected})
    if not claims.delayed or answer.no_volume.all():
        return answer
    answer.matched.sort(key=size_of)
    answer.matches = match_volumes(nodes, storage, answer.matched)
    _check_provisions(nodes, storage, answer)
    return answer


def _check_bound(nodes: NodeView, storage: StorageState, claims: list[Claim], answer: Answer) -> None:
    """The first claim that does not fit gives a node's reason."""
    fits = np.ones(len(nodes), dtype=np.bool_)
    for claim in claims:
        volume = storage.volumes.get(claim.spec.volume_name)
        if volume is None:
            answer.lost |= fits
            return
        reached = reachable(nodes, volume)
        if reached is not None:
            answer.unreached |= fits & ~reached
            fits &= reached


def _check_provisions(nodes: NodeView, storage: StorageState, answer: Answer) -> None:
    """Volumes must be made for claims that are to have one, and where nothing was found for those that look.

    The first claim for which none can be made gives a node's reason.
    """
    undecided = ~answer.no_volume
    everywhere = np.ones(len(nodes), dtype=np.bool_)
    needs = [(claim, everywhere) for claim in answer.provisioned]
    needs += [(claim, picks == NO_VOLUME) for claim, picks in zip(answer.matched, answer.matches.picks, strict=True)]
    for claim, where in needs:
        here = undecided & where
        if not here.any():
            continue
        storage_class = storage.classes.get(claim.class_name)
        if storage_class is None:
            raise ValueError(f'failed to find storage class "{claim.class_name}"')
        placed = in_topology(nodes, storage_class)
        answer.no_volume |= here & ~placed
        short = here & placed & ~has_room(nodes, storage, claim, storage_class)
        answer.no_room |= short
        undecided &= ~(here & ~placed | short)
