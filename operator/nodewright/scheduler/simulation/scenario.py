"""What is simulated: a picture of a cluster, what the files add to it, and the Pods to be placed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import msgspec
import numpy as np

from nodewright.kube.resources import (
    CSINODES,
    NAMESPACES,
    NODES,
    PODS,
    PRIORITYCLASSES,
    SCHEDULERPROFILES,
    STORAGECLASSES,
)

from .. import wording
from ..core import SchedulerCore
from ..node_selection import match_required
from ..objects import Node, Pod
from ..profiles import SchedulerProfile
from ..requests import pod_requests
from ..served import served_profiles
from ..state import ClusterState, NodeView
from ..storage_objects import Claim, CSINode
from ..tolerations import untolerated_sets
from ..world_objects import SelectorOwner
from .answer import SimulationResult
from .defaults import with_defaults
from .documents import Body, Document, ManifestError
from .quantities import quantities_as_text
from .report import Planned, levels, report
from .run import Run
from .snapshot import AnnotatedClass, Snapshot
from .workloads import MARK, Replica, Workload, is_workload, workload

HOSTNAME = "kubernetes.io/hostname"
CLUSTER = "cluster"
# Taints that tell of a node's condition; a new one has none of them for long.
_PASSING = "node.kubernetes.io/"


class Scenario:
    """Files on top of a picture. Give defaults to each of `workloads`, then `run`."""

    def __init__(self, snapshot: Snapshot, documents: Iterable[Document], namespace: str = "default") -> None:
        """`namespace` is for objects that name none. Raises ManifestError."""
        self.snapshot = snapshot
        self.workloads: list[Workload] = []
        self.notes: list[str] = []
        self._numbers = itertools.count(1)
        # What is there without the files.
        self._existing = {resource: snapshot.names(resource) for resource in (NODES, NAMESPACES, PRIORITYCLASSES)}
        self._defaulted: dict[int, Body] = {}
        left_out: dict[str, int] = {}
        for document in documents:
            if is_workload(document):
                quantities_as_text(document)
                self.workloads.append(workload(document, namespace))
            elif not snapshot.add(document, namespace):
                left_out[document.kind] = left_out.get(document.kind, 0) + 1
        if left_out:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(left_out.items()))
            self.notes.append(f"left out, as they take no part in scheduling: {kinds}")

    def add_nodes(self, count: int, template: str) -> None:
        """Add fresh copies of a node: without its Pods, images, cordon and passing taints. Raises ManifestError."""
        node = self.snapshot.get(NODES, Node, template)
        if node is None:
            known = wording.names(sorted(self.snapshot.names(NODES))) or "none"
            raise ManifestError(f"--node-template: there is no node {template} (there are: {known})")
        csi = self.snapshot.get(CSINODES, CSINode, template)
        taints = [t for t in node.spec.taints if not t.key.startswith(_PASSING)]
        for number in range(1, count + 1):
            name = f"{template}-{MARK}-{number}"
            labels = {**node.metadata.labels, HOSTNAME: name}
            meta = msgspec.structs.replace(node.metadata, name=name, uid=name, labels=labels)
            spec = msgspec.structs.replace(node.spec, unschedulable=False, taints=taints)
            status = msgspec.structs.replace(node.status, images=[])
            self.snapshot.put(NODES, Node(metadata=meta, spec=spec, status=status))
            if csi is not None:
                csi_meta = msgspec.structs.replace(csi.metadata, name=name, uid=name)
                self.snapshot.put(CSINODES, msgspec.structs.replace(csi, metadata=csi_meta))

    # --- defaults ------------------------------------------------------------------------------------------------

    def stranger(self, of: Workload) -> str:
        """Why the cluster's API server cannot be asked about these Pods: what only the files have. "" where it can."""
        if of.namespace not in self._existing[NAMESPACES]:
            return f"namespace {of.namespace}"
        name = (of.manifest.get("spec") or {}).get("priorityClassName")
        if name and name not in self._existing[PRIORITYCLASSES] and name in self.snapshot.names(PRIORITYCLASSES):
            return f"PriorityClass {name}"
        return ""

    def fill(self, of: Workload, defaulted: Body) -> None:
        """Take what the API server makes of a workload's first Pod."""
        self._defaulted[id(of)] = defaulted

    def fill_offline(self, of: Workload) -> None:
        """Fill in the defaults without asking anybody. Raises ManifestError."""
        self.fill(of, with_defaults(of.document, of.first(), self.snapshot))

    # --- running -------------------------------------------------------------------------------------------------

    def run(self, *, schedule_pending: bool = False) -> SimulationResult:
        """Place all Pods, the cluster's waiting ones too with `schedule_pending`. Raises ManifestError."""
        present = self.snapshot.all(PODS, Pod)
        waiting = sorted(
            (pod for pod in present if not pod.spec.node_name),
            key=lambda pod: (pod.metadata.creation_timestamp or "", pod.key),
        )
        core = self._core([*present, *(self._first_pod(w) for w in self.workloads)])
        for pod in present:
            if pod.spec.node_name:
                core.on_pod(None, pod)
            elif pod.status.nominated_node_name and not schedule_pending:
                # It is not tried here, but the room that was cleared for it is not for others either.
                core.state.nominated.put(core.factory.info(pod), pod.status.nominated_node_name)
        plans = [Planned(pod, CLUSTER) for pod in waiting] if schedule_pending else []
        for one in self.workloads:
            plans += [Planned(pod, one.document.place, one.title) for pod in self._pods(one, core)]
        for plan in plans:
            if plan.pod.spec.node_name:
                core.on_pod(None, plan.pod)
        before = levels(core.state)
        run = Run(core)
        run.schedule(plan.pod for plan in plans if not plan.pod.spec.node_name)
        result = report(run, plans, before, levels(core.state), self._existing[NODES])
        result.notes = list(dict.fromkeys(self.notes))
        return result

    def _core(self, pods: list[Pod]) -> SchedulerCore:
        objects = self.snapshot.all(SCHEDULERPROFILES, SchedulerProfile)
        usual, notes = served_profiles(objects)
        names = list(dict.fromkeys(pod.spec.scheduler_name for pod in pods if not pod.spec.node_name))
        self.notes += notes
        for name in names:
            if name and name not in usual:
                self.notes.append(f"no SchedulerProfile serves schedulerName {name}: default plugins stand in for it")
        profiles, _ = served_profiles(objects, names)
        core = SchedulerCore(profiles, lambda: 0.0)
        self.snapshot.tell(core)
        return core

    # --- Pods of workloads ---------------------------------------------------------------------------------------

    def _first_pod(self, of: Workload) -> Pod:
        return of.document.convert(Pod, self._defaulted[id(of)])

    def _pods(self, of: Workload, core: SchedulerCore) -> Iterator[Pod]:
        defaulted = self._defaulted[id(of)]
        if of.owner is not None:
            version, kind, body = of.owner
            owner = msgspec.json.decode(msgspec.json.encode(body), type=SelectorOwner)
            core.on_owner((version, kind), None, owner)
        if of.per_node:
            yield from self._daemon_pods(of, defaulted, core.state)
            return
        for replica in of.replicas:
            body = of.filled(defaulted, replica)
            pod = self._pod(of, body)
            for claim in self._claims(of, replica, pod, body):
                if claim.key not in core.state.storage.claims:
                    core.state.storage.on_claim(None, claim)
            yield pod

    def _pod(self, of: Workload, body: Body) -> Pod:
        pod = of.document.convert(Pod, body)
        pod.metadata.uid = f"{MARK}-{next(self._numbers)}"
        pod.metadata.resource_version = ""
        try:
            pod_requests(pod)
        except ValueError as error:
            raise of.document.error(str(error)) from error
        return pod

    def _daemon_pods(self, of: Workload, defaulted: Body, state: ClusterState) -> Iterator[Pod]:
        """One Pod for each node whose labels and taints suit it, for that node alone as the controller has it."""
        sample = self._pod(of, of.filled(defaulted, Replica(of.name)))
        nodes = NodeView(state)
        free = ~untolerated_sets(state.taints.sets, sample.spec.tolerations)
        suits = nodes.present & match_required(nodes, sample.spec) & free[nodes.taint_sets]
        for position in np.flatnonzero(suits):
            node = nodes.name(int(position))
            yield self._pod(of, _pinned(of.filled(defaulted, Replica(f"{of.name}-{node}")), node))

    def _claims(self, of: Workload, replica: Replica, pod: Pod, body: Body) -> Iterator[Claim]:
        """Claims that controllers would make: for a StatefulSet's Pod, and for ephemeral volumes."""
        for template in of.claim_templates:
            name = replica.claims.get(str((template.get("metadata") or {}).get("name") or ""))
            if name is not None:
                yield self._claim(of, {"name": name}, template)
        for volume in body["spec"].get("volumes") or []:
            made_for = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
            if made_for:
                owner = {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid}
                name = f"{pod.metadata.name}-{volume.get('name')}"
                yield self._claim(of, {"name": name, "ownerReferences": [{**owner, "controller": True}]}, made_for)

    def _claim(self, of: Workload, meta: Body, template: Body) -> Claim:
        claim = of.document.convert(
            Claim, {"metadata": {**meta, "namespace": of.namespace, "uid": meta["name"]}, "spec": template.get("spec")}
        )
        if claim.spec.storage_class_name is None:
            classes = [c for c in self.snapshot.all(STORAGECLASSES, AnnotatedClass) if c.is_default]
            claim.spec.storage_class_name = classes[0].key if classes else None
        return claim


def _pinned(body: Body, node: str) -> Body:
    """The Pod of a DaemonSet for one node: the affinity that the controller puts in place of the template's."""
    spec = body["spec"]
    affinity = spec.get("affinity") or {}
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    own = {**(affinity.get("nodeAffinity") or {}), **required}
    return {**body, "spec": {**spec, "affinity": {**affinity, "nodeAffinity": own}}}
