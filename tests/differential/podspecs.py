"""Random Pods, feature by feature. Each function draws what one feature adds to a Pod."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from differential import clusters
from differential.clusters import GPU, HOSTNAME, NODE_LABELS, NODE_NAMES, ZONE, lists_of, percent, some
from differential.standing import NAMESPACE_LABELS, OWNERS
from differential.volumes import volumes

Object = dict[str, Any]

POD_LABELS: dict[str, tuple[str, ...]] = {
    "app": ("web", "db"),
    "tier": ("front", "back"),
    "version": ("1", "2"),
}
TOPOLOGY_KEYS = (ZONE, HOSTNAME, "rack", "disk", "nothing")

requests = some(
    {
        "cpu": ("250m", "600m", "1", "0", "2500m", "333m"),
        "memory": ("256Mi", "1Gi", "0", "128974848", "200000500m"),  # the last is half a byte too many
    },
    60,
)
# Those of which a limit must be equal.
extended = some({GPU: ("1", "2"), "hugepages-2Mi": ("4Mi", "32Mi"), "ephemeral-storage": ("500M", "5Gi")}, 30)


def container(name: str, images: st.SearchStrategy[str], *, plain: bool = False) -> st.SearchStrategy[Object]:
    """A container; a plain one asks for cpu and memory only."""

    @st.composite
    def build(draw: st.DrawFn) -> Object:
        asked = draw(requests)
        resources: Object = {"requests": asked}
        if not plain:
            more = draw(extended)
            if "hugepages-2Mi" in more and not asked:
                asked["cpu"] = "100m"  # the API wants cpu or memory beside huge pages
            resources = {"requests": {**asked, **more}, "limits": more}
        return {"name": name, "image": draw(images), "resources": resources}

    return build()


no_image = st.just("none:1")
any_image = st.sampled_from(
    (
        *("web", "app:v1", "app:v2", "registry.example/big:1", "none:1"),
        *("web@sha256:" + "0" * 64, "registry.example:5000/app:v2", "registry.example:5000/app"),
    )
)


@st.composite
def base(draw: st.DrawFn, features: frozenset[str]) -> Object:
    """A Pod with one or two containers, labels and a namespace."""
    images = any_image if "images" in features else no_image
    plain = "resources" not in features
    count = draw(st.integers(1, 2))
    return {
        "metadata": {
            "namespace": draw(st.sampled_from(sorted(NAMESPACE_LABELS))),
            "labels": draw(some(POD_LABELS, 75)),
        },
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [draw(container(f"c{number}", images, plain=plain)) for number in range(count)],
        },
    }


@st.composite
def resources(draw: st.DrawFn, pod: Object) -> None:
    """Init containers, sidecars, pod-level requests, overhead."""
    spec = pod["spec"]
    inits = draw(lists_of(st.booleans(), 3))
    if inits:
        spec["initContainers"] = [
            {**draw(container(f"i{number}", any_image, plain=True)), **({"restartPolicy": "Always"} if lasting else {})}
            for number, lasting in enumerate(inits)
        ]
    if draw(percent(25)):
        # Not less than the sum of what containers can ask for: the API refuses that.
        enough = {"cpu": ("9", "8100m"), "memory": ("3Gi", "4000000000")}
        only_fitting = [c["resources"]["requests"] for c in (*spec["containers"], *spec.get("initContainers", ()))]
        small = {"cpu": ("3", "1250m"), "memory": ("3Gi", "1200Mi")}
        has_large = any(r.get("cpu") == "2500m" or r.get("memory") == "1Gi" for r in only_fitting)
        spec["resources"] = {"requests": draw(some(enough if has_large else small, 60))}
    if draw(percent(20)):
        spec["runtimeClassName"] = "heavy"


@st.composite
def tolerations(draw: st.DrawFn, pod: Object) -> None:
    """Tolerations of all forms."""
    exists = st.fixed_dictionaries(
        {"operator": st.just("Exists"), "effect": st.sampled_from(("", *clusters.EFFECTS))},
        optional={"key": st.sampled_from(clusters.TAINT_KEYS)},
    )
    equal = st.fixed_dictionaries(
        {
            "key": st.sampled_from(clusters.TAINT_KEYS),
            "value": st.sampled_from(clusters.TAINT_VALUES),
            "effect": st.sampled_from(("", *clusters.EFFECTS)),
        },
        optional={"operator": st.just("Equal")},
    )
    pod["spec"]["tolerations"] = draw(lists_of(exists | equal, 3))


@st.composite
def host_ports(draw: st.DrawFn, pod: Object) -> None:
    """Host ports at all addresses or at one, TCP or UDP."""
    ports = st.lists(
        st.fixed_dictionaries(
            {"containerPort": st.just(80), "hostPort": st.sampled_from((8080, 8081))},
            optional={"hostIP": st.sampled_from(("127.0.0.1", "0.0.0.0", "10.0.0.1")), "protocol": st.just("UDP")},
        ),
        max_size=2,
        unique_by=lambda port: (port["hostPort"], port.get("protocol")),
    )
    pod["spec"]["containers"][0]["ports"] = draw(ports)


# --- node affinity ------------------------------------------------------------------------------------------------


@st.composite
def node_requirement(draw: st.DrawFn) -> Object:
    """A requirement on a node label, with any operator."""
    key = draw(st.sampled_from((*NODE_LABELS, HOSTNAME, "nothing")))
    operator = draw(st.sampled_from(("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")))
    if operator in ("Exists", "DoesNotExist"):
        return {"key": key, "operator": operator}
    if operator in ("Gt", "Lt"):
        return {"key": "size", "operator": operator, "values": [draw(st.sampled_from(("1", "4", "0", "10")))]}
    known = (*NODE_LABELS.get(key, NODE_NAMES[:4]), "other")
    return {"key": key, "operator": operator, "values": draw(st.lists(st.sampled_from(known), min_size=1, max_size=3))}


field_requirement = st.fixed_dictionaries(
    {
        "key": st.just("metadata.name"),
        "operator": st.sampled_from(("In", "NotIn")),
        "values": st.sampled_from(NODE_NAMES[:5]).map(lambda name: [name]),
    }
)


@st.composite
def node_term(draw: st.DrawFn) -> Object:
    """A node selector term; an empty one is possible, and selects nothing."""
    term: Object = {}
    if expressions := draw(lists_of(node_requirement(), 2)):
        term["matchExpressions"] = expressions
    if draw(percent(15)):
        term["matchFields"] = draw(lists_of(field_requirement, 2, least=1))
    return term


@st.composite
def node_affinity(draw: st.DrawFn, pod: Object) -> None:
    """nodeSelector, required and preferred node affinity."""
    if draw(percent(30)):
        pod["spec"]["nodeSelector"] = draw(some({key: NODE_LABELS[key] for key in ("disk", "rack")}, 50))
    affinity: Object = {}
    if draw(percent(50)):
        terms = draw(lists_of(node_term(), 3, least=1))
        affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    if draw(percent(70)):
        weighted = st.fixed_dictionaries({"weight": st.integers(1, 100), "preference": node_term()})
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = draw(lists_of(weighted, 3))
    if affinity:
        pod["spec"].setdefault("affinity", {})["nodeAffinity"] = affinity


# --- selectors over Pods ------------------------------------------------------------------------------------------


@st.composite
def pod_selector(draw: st.DrawFn) -> Object:
    """A label selector over Pods; sometimes empty, which selects all."""
    selector: Object = {}
    if draw(percent(60)):
        selector["matchLabels"] = draw(some({key: POD_LABELS[key] for key in ("app", "tier")}, 55))
    if draw(percent(30)):
        key = draw(st.sampled_from(("app", "tier")))
        operator = draw(st.sampled_from(("In", "NotIn", "Exists", "DoesNotExist")))
        requirement: Object = {"key": key, "operator": operator}
        if operator in ("In", "NotIn"):
            requirement["values"] = draw(st.lists(st.sampled_from((*POD_LABELS[key], "other")), min_size=1, max_size=2))
        selector["matchExpressions"] = [requirement]
    return selector


@st.composite
def spread_constraint(draw: st.DrawFn) -> Object:
    """A topology spread constraint with any combination of its fields."""
    hard = draw(st.booleans())
    constraint: Object = {
        "maxSkew": draw(st.integers(1, 3)),
        "topologyKey": draw(st.sampled_from(TOPOLOGY_KEYS[:4] if draw(percent(90)) else TOPOLOGY_KEYS)),
        "whenUnsatisfiable": "DoNotSchedule" if hard else "ScheduleAnyway",
    }
    if draw(percent(90)):
        constraint["labelSelector"] = draw(pod_selector())
        if draw(percent(25)):
            constraint["matchLabelKeys"] = ["version"]
    if hard and draw(percent(30)):
        constraint["minDomains"] = draw(st.integers(1, 5))
    policies = st.sampled_from(("Honor", "Ignore"))
    for policy in "nodeAffinityPolicy", "nodeTaintsPolicy":
        if draw(percent(30)):
            constraint[policy] = draw(policies)
    return constraint


@st.composite
def spread(draw: st.DrawFn, pod: Object) -> None:
    """Up to three topology spread constraints."""
    pod["spec"]["topologySpreadConstraints"] = draw(
        st.lists(spread_constraint(), max_size=3, unique_by=lambda one: (one["topologyKey"], one["whenUnsatisfiable"]))
    )


@st.composite
def affinity_term(draw: st.DrawFn) -> Object:
    """A term of Pod (anti-)affinity."""
    term: Object = {"topologyKey": draw(st.sampled_from(TOPOLOGY_KEYS if draw(percent(20)) else TOPOLOGY_KEYS[:3]))}
    if draw(percent(95)):
        term["labelSelector"] = draw(pod_selector())
        if draw(percent(15)):
            term["matchLabelKeys"] = ["version"]
        elif draw(percent(15)):
            term["mismatchLabelKeys"] = ["version"]
    if draw(percent(20)):
        term["namespaces"] = draw(
            st.lists(st.sampled_from(sorted(NAMESPACE_LABELS)), min_size=1, max_size=2, unique=True)
        )
    if draw(percent(20)):
        labels = draw(some({"team": ("blue", "red"), "env": ("prod",)}, 50))
        term["namespaceSelector"] = {"matchLabels": labels} if labels else {}
    return term


@st.composite
def pod_affinity(draw: st.DrawFn, pod: Object) -> None:
    """Required and preferred Pod affinity and anti-affinity."""
    weighted = st.fixed_dictionaries({"weight": st.integers(1, 100), "podAffinityTerm": affinity_term()})
    for kind, chance in ("podAffinity", 30), ("podAntiAffinity", 40):
        terms: Object = {}
        if draw(percent(chance)):
            terms["requiredDuringSchedulingIgnoredDuringExecution"] = draw(lists_of(affinity_term(), 2))
        if draw(percent(45)):
            terms["preferredDuringSchedulingIgnoredDuringExecution"] = draw(lists_of(weighted, 2))
        if terms:
            pod["spec"].setdefault("affinity", {})[kind] = terms


@st.composite
def owner(draw: st.DrawFn, pod: Object) -> None:
    """An owner whose selector may spread the Pod, as Services of the namespace do; it may not exist there."""
    name = draw(st.sampled_from(sorted(OWNERS)))
    resource = OWNERS[name][0]
    reference = {"apiVersion": resource.api_version, "kind": resource.kind, "name": name, "uid": f"uid-{name}"}
    if draw(percent(85)):
        reference["controller"] = True
    pod["metadata"]["ownerReferences"] = [reference]


FEATURES: dict[str, Callable[[Object], st.SearchStrategy[None]]] = {
    "resources": lambda pod: resources(pod),
    "taints": lambda pod: tolerations(pod),
    "ports": lambda pod: host_ports(pod),
    "node affinity": lambda pod: node_affinity(pod),
    "volumes": lambda pod: volumes(pod),
    "owners": lambda pod: owner(pod),
    "spread": lambda pod: spread(pod),
    "pod affinity": lambda pod: pod_affinity(pod),
}


# Pods have a priority only in cases with this feature.
PREEMPTION = "preemption"
VICTIMS = ("low", "low", "middle")
ALL = ("high", "high", "high", "middle", "middle", "low", "polite")


@st.composite
def template(draw: st.DrawFn, features: frozenset[str], priorities: Sequence[str], chance: int = 70) -> Object:
    """A Pod without a name, with about `chance` percent of the features."""
    pod = draw(base(features))
    for name, add in FEATURES.items():
        if name in features and draw(percent(chance)):
            draw(add(pod))
    if PREEMPTION in features:
        pod["spec"]["priorityClassName"] = draw(st.sampled_from(priorities))
        # Victims stay, and end for ever: there is no kubelet.
        pod["spec"]["terminationGracePeriodSeconds"] = 30
    return pod
