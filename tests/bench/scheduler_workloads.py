"""The named workloads of the scheduler benchmark, after the shapes of upstream's scheduler_perf, at sizes for 2 cores.

All share one kind of node (32 CPUs, 256 GiB, 110 Pods, three zones), so that nodes are made once for all workloads with
the same number of them. Requests that scheduler_perf states for its 4-CPU nodes are 8 times as large here where they
matter.
"""

from __future__ import annotations

from typing import Any

import msgspec

Object = dict[str, Any]

ZONE = "topology.kubernetes.io/zone"
HOSTNAME = "kubernetes.io/hostname"
ZONES = 3
CHURN_LABEL = "bench/turn"
NODE_AMOUNTS = {"cpu": "32", "memory": "256Gi", "pods": "110"}
# Names of PriorityClasses, and their values.
PRIORITIES = {"bench-low": 10, "bench-high": 1000}


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """What the Pods of one kind have in common; requests as scheduler_perf's default Pod."""

    cpu: str = "100m"
    memory: str = "500Mi"
    labels: dict[str, str] = msgspec.field(default_factory=lambda: {"app": "bench"})
    affinity: Object = {}
    spread: list[Object] = []
    priority_class: str = ""


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """A backlog of `pods` measured Pods on `nodes` nodes, and what stands or happens beside it."""

    name: str
    summary: str
    pods: int
    nodes: int = 1000
    pod: Template = Template()
    # Pods that are bound by their creation: so many on each node, like `placed`.
    placed_per_node: int = 0
    placed: Template = Template()
    # Pods that fit nowhere: one after each so many measured ones, like `unfit`. 0: none.
    unfit_after: int = 0
    unfit: Template = Template()
    # No node takes two measured Pods.
    one_per_node: bool = False
    churn: bool = False

    @property
    def unfit_pods(self) -> int:
        """How many Pods of the backlog fit nowhere."""
        return self.pods // self.unfit_after if self.unfit_after else 0

    @property
    def placed_pods(self) -> int:
        """How many Pods are on nodes before the scheduler starts."""
        return self.placed_per_node * self.nodes

    def resized(self, nodes: int | None, pods: int | None) -> Workload:
        """The same on other numbers of nodes and Pods; None keeps a number."""
        nodes, pods = nodes or self.nodes, pods or self.pods
        return msgspec.structs.replace(self, nodes=nodes, pods=min(pods, nodes) if self.one_per_node else pods)


def _pod_terms(labels: dict[str, str], key: str) -> Object:
    return {"labelSelector": {"matchLabels": labels}, "topologyKey": key}


def _anti_required(labels: dict[str, str]) -> Template:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [_pod_terms(labels, HOSTNAME)]}
    return Template(labels=labels, affinity={"podAntiAffinity": required})


def _anti_preferred(labels: dict[str, str]) -> Template:
    preferred = [{"weight": 1, "podAffinityTerm": _pod_terms(labels, HOSTNAME)}]
    return Template(
        labels=labels, affinity={"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    )


def _near(labels: dict[str, str]) -> Template:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [_pod_terms(labels, ZONE)]}
    return Template(labels=labels, affinity={"podAffinity": required})


def _spread(labels: dict[str, str]) -> Template:
    constraint = {
        "maxSkew": 1,
        "topologyKey": ZONE,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": labels},
    }
    return Template(labels=labels, spread=[constraint])


def _in_zones(zones: list[str]) -> Template:
    terms = [{"matchExpressions": [{"key": ZONE, "operator": "In", "values": zones}]}]
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return Template(affinity={"nodeAffinity": required})


_ALL = (
    Workload(name="basic", summary="plain Pods", pods=5000),
    Workload(name="spread", summary="zone spread, maxSkew 1, DoNotSchedule", pods=2000, pod=_spread({"color": "blue"})),
    Workload(name="affinity", summary="required Pod affinity by zone", pods=2000, pod=_near({"color": "blue"})),
    Workload(
        name="anti-preferred",
        summary="preferred anti-affinity by host",
        pods=2000,
        pod=_anti_preferred({"color": "yellow"}),
    ),
    Workload(
        name="anti-required",
        summary="required anti-affinity by host: as many Pods as nodes",
        pods=1000,
        pod=_anti_required({"color": "green"}),
        one_per_node=True,
    ),
    Workload(
        name="node-affinity",
        summary="required node affinity, two zones of three",
        pods=3000,
        pod=_in_zones(["zone-0", "zone-1"]),
    ),
    Workload(
        name="preemption",
        summary="nodes full of low priority; each Pod must preempt three",
        pods=1000,
        # 4 x 7.2 of 32 CPUs are taken; 24 need three of the four to go.
        pod=Template(cpu="24", priority_class="bench-high"),
        placed_per_node=4,
        placed=Template(cpu="7200m", priority_class="bench-low"),
        one_per_node=True,
    ),
    Workload(
        name="unschedulable",
        summary="after three Pods that fit, one that fits nowhere",
        pods=3000,
        unfit_after=3,
        unfit=Template(cpu="72"),
    ),
    Workload(name="churn", summary="nodes, Services and Pods change meanwhile", pods=5000, churn=True),
    Workload(name="basic-5000", summary="plain Pods", pods=5000, nodes=5000),
)
# By name, those with the same number of nodes one after another.
WORKLOADS = {workload.name: workload for workload in _ALL}


def node_object(number: int) -> Object:
    """A ready node without a kubelet."""
    name = node_name(number)
    status = {"capacity": NODE_AMOUNTS, "allocatable": NODE_AMOUNTS, "conditions": [ready("2026-01-01T00:00:00Z")]}
    labels = {HOSTNAME: name, ZONE: f"zone-{number % ZONES}", CHURN_LABEL: "0"}
    return {"metadata": {"name": name, "labels": labels}, "status": status}


def node_name(number: int) -> str:
    """The name of the node with this number."""
    return f"node-{number:05}"


def ready(heartbeat: str) -> Object:
    """The condition Ready, last said at `heartbeat`."""
    words = {"type": "Ready", "status": "True", "reason": "Bench", "message": "no kubelet"}
    return {**words, "lastHeartbeatTime": heartbeat}


def pod_object(name: str, template: Template, scheduler_name: str, node: str = "") -> Object:
    """A Pod that goes away at once when deleted; with `node` it is bound by its creation."""
    requests = {"cpu": template.cpu, "memory": template.memory}
    spec: Object = {
        "schedulerName": scheduler_name,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "pause", "image": "pause:bench", "resources": {"requests": requests}}],
    }
    if template.affinity:
        spec["affinity"] = template.affinity
    if template.spread:
        spec["topologySpreadConstraints"] = template.spread
    if template.priority_class:
        spec["priorityClassName"] = template.priority_class
    if node:
        spec["nodeName"] = node
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": template.labels}, "spec": spec}


def measured_names(workload: Workload) -> list[str]:
    """Names of the Pods whose bindings are measured."""
    return [f"pod-{number:05}" for number in range(workload.pods)]


def unfit_names(workload: Workload) -> list[str]:
    """Names of the Pods that fit nowhere; sorted by name, they come between the measured ones."""
    return [f"pod-{(number + 1) * workload.unfit_after - 1:05}-unfit" for number in range(workload.unfit_pods)]


def placed_objects(workload: Workload, scheduler_name: str) -> list[Object]:
    """The Pods that are on nodes before the scheduler starts."""
    return [
        pod_object(f"placed-{number:05}", workload.placed, scheduler_name, node_name(number % workload.nodes))
        for number in range(workload.placed_pods)
    ]


def backlog(workload: Workload, scheduler_name: str) -> list[Object]:
    """The Pods that wait for the scheduler, in the order of their names, which is that of lists."""
    named = [(name, workload.pod) for name in measured_names(workload)]
    named += [(name, workload.unfit) for name in unfit_names(workload)]
    return [pod_object(name, template, scheduler_name) for name, template in sorted(named, key=lambda pair: pair[0])]
