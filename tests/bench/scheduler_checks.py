"""Whether the final state keeps the rules that the Pods' specs and the nodes' amounts state.

Written apart from both schedulers. It judges the state and not each step, which is enough for Pods that only came:
then a rule about others that held at each placement holds in the end.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction

from scheduler_workloads import Object

from nodewright.kube import quantity

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


class State:
    """The nodes and all Pods of a cluster, as the API shows them."""

    def __init__(self, nodes: list[Object], pods: list[Object]) -> None:
        self.nodes = {node["metadata"]["name"]: node for node in nodes}
        self.pods = pods
        self.bound = [pod for pod in pods if pod["spec"].get("nodeName")]

    def domain(self, pod: Object, key: str) -> str | None:
        """The value of the label `key` at the Pod's node."""
        node = self.nodes.get(pod["spec"]["nodeName"])
        return node["metadata"].get("labels", {}).get(key) if node else None

    def matching(self, namespace: str, term: Object) -> list[Object]:
        """The bound Pods of the namespace that the term's selector selects."""
        wanted = _match_labels(term["labelSelector"]).items()
        return [
            pod
            for pod in self.bound
            if pod["metadata"]["namespace"] == namespace and wanted <= pod["metadata"].get("labels", {}).items()
        ]

    def per_domain(self, namespace: str, term: Object) -> Counter[str | None]:
        """How many of those Pods are in each domain of the term's topology."""
        key = term["topologyKey"]
        return Counter(self.domain(pod, key) for pod in self.matching(namespace, term))


def _match_labels(selector: Object) -> dict[str, str]:
    if set(selector) != {"matchLabels"}:
        raise NotImplementedError(f"the checks know matchLabels only, not {selector}")
    labels: dict[str, str] = selector["matchLabels"]
    return labels


def violations(state: State) -> list[str]:
    """What is wrong, in words; empty when every rule holds."""
    found = [*_misplaced(state), *_over_committed(state), *_outside_affinity(state)]
    # Pods of a workload are alike: each rule is judged once.
    rules: dict[str, tuple[str, str, Object]] = {}
    for pod in state.bound:
        for kind, rule in _rules(pod["spec"]):
            namespace = pod["metadata"]["namespace"]
            rules[f"{kind} {namespace} {rule}"] = (kind, namespace, rule)
    judges = {"spread": _uneven, "affinity": _lonely, "anti-affinity": _crowded}
    for kind, namespace, rule in rules.values():
        found += judges[kind](state, namespace, rule)
    return found


def _rules(spec: Object) -> Iterator[tuple[str, Object]]:
    for constraint in spec.get("topologySpreadConstraints", []):
        if constraint["whenUnsatisfiable"] == "DoNotSchedule":
            yield "spread", constraint
    affinity = spec.get("affinity", {})
    for term in affinity.get("podAffinity", {}).get(_REQUIRED, []):
        yield "affinity", term
    for term in affinity.get("podAntiAffinity", {}).get(_REQUIRED, []):
        yield "anti-affinity", term


def _misplaced(state: State) -> Iterator[str]:
    for pod in state.bound:
        if pod["spec"]["nodeName"] not in state.nodes:
            yield f"{pod['metadata']['name']} is on {pod['spec']['nodeName']}, which does not exist"


def _over_committed(state: State) -> Iterator[str]:
    used: dict[str, Counter[str]] = defaultdict(Counter)
    for pod in state.bound:
        node = used[pod["spec"]["nodeName"]]
        node["pods"] += 1
        for container in pod["spec"]["containers"]:
            for resource, amount in container.get("resources", {}).get("requests", {}).items():
                node[resource] += quantity.parse(amount)  # type: ignore[assignment]
    for name, amounts in used.items():
        allocatable = state.nodes[name]["status"]["allocatable"] if name in state.nodes else {}
        for resource, amount in amounts.items():
            limit = quantity.parse(allocatable[resource]) if resource in allocatable else Fraction(0)
            if amount > limit:
                yield f"{name} is over-committed: {float(amount):g} of {float(limit):g} {resource}"


def _outside_affinity(state: State) -> Iterator[str]:
    for pod in state.bound:
        required = pod["spec"].get("affinity", {}).get("nodeAffinity", {}).get(_REQUIRED)
        if required is None:
            continue
        if not any(_term_matches(state, pod, term) for term in required["nodeSelectorTerms"]):
            yield f"{pod['metadata']['name']} is on {pod['spec']['nodeName']}, against its node affinity"


def _term_matches(state: State, pod: Object, term: Object) -> bool:
    if set(term) != {"matchExpressions"} or any(e["operator"] != "In" for e in term["matchExpressions"]):
        raise NotImplementedError(f"the checks know matchExpressions with In only, not {term}")
    return all(state.domain(pod, e["key"]) in e["values"] for e in term["matchExpressions"])


def _uneven(state: State, namespace: str, constraint: Object) -> Iterator[str]:
    key = constraint["topologyKey"]
    domains = {node["metadata"].get("labels", {}).get(key) for node in state.nodes.values()} - {None}
    counts = state.per_domain(namespace, constraint)
    each = [counts[domain] for domain in domains]
    if max(each) - min(each) > constraint["maxSkew"]:
        yield f"the Pods are spread unevenly over {key}: {dict(counts)}"


def _lonely(state: State, namespace: str, term: Object) -> Iterator[str]:
    """Each Pod with this term must be with another one that it selects; where there is no other, with itself."""
    counts = state.per_domain(namespace, term)
    for pod in state.bound:
        terms = pod["spec"].get("affinity", {}).get("podAffinity", {}).get(_REQUIRED, [])
        if pod["metadata"]["namespace"] != namespace or term not in terms:
            continue
        itself = _match_labels(term["labelSelector"]).items() <= pod["metadata"].get("labels", {}).items()
        others = counts[state.domain(pod, term["topologyKey"])] - itself
        if others < 1 and not (itself and counts.total() == 1):
            yield f"{pod['metadata']['name']} is not with the Pods of its affinity"


def _crowded(state: State, namespace: str, term: Object) -> Iterator[str]:
    """The Pods with this term select each other: two in one domain are one too many."""
    for domain, number in state.per_domain(namespace, term).items():
        if number > 1:
            yield f"{number} Pods are in {term['topologyKey']} {domain}, against their anti-affinity"
