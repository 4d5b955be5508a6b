"""Random clusters: nodes with little room, so that few Pods make a difference."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Object = dict[str, Any]

ZONE = "topology.kubernetes.io/zone"
HOSTNAME = "kubernetes.io/hostname"
NODE_NAMES = tuple(f"n{number}" for number in range(10))

# Small alphabets, so that selectors hit.
NODE_LABELS: dict[str, tuple[str, ...]] = {
    ZONE: ("a", "b", "c"),
    "rack": ("r1", "r2"),
    "disk": ("ssd", "hdd"),
    "size": ("1", "5", "10", "big", "007"),
}
TAINT_KEYS = ("dedicated", "spot")
TAINT_VALUES = ("", "x", "y")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
GPU = "example.com/gpu"

MIB = 1024**2
# Sizes go with names: two nodes that report different sizes would leave it to their order which one counts.
IMAGES: dict[str, tuple[list[str], int]] = {
    "small": (["app:v1"], 15 * MIB),
    "middle": (["web:latest", "web@sha256:" + "0" * 64], 300 * MIB + 1),
    "large": (["registry.example/big:1"], 2500 * MIB),
    "odd": (["app:v2", "registry.example:5000/app:v2"], 777_777_777),
}


def some(values: dict[str, tuple[str, ...]], chance: int = 70) -> st.SearchStrategy[dict[str, str]]:
    """Some of the keys, each with one of its values. `chance` in percent is that of each key."""

    @st.composite
    def build(draw: st.DrawFn) -> dict[str, str]:
        return {key: draw(st.sampled_from(options)) for key, options in values.items() if draw(percent(chance))}

    return build()


def percent(chance: int) -> st.SearchStrategy[bool]:
    """True in about so many percent of the cases; shrinks towards False."""
    return st.sampled_from([False] * (20 - chance // 5) + [True] * (chance // 5))


def lists_of(element: st.SearchStrategy[Any], most: int, least: int = 0) -> st.SearchStrategy[list[Any]]:
    """A list; all lengths are equally likely, where hypothesis by itself prefers short ones."""
    return st.integers(least, most).flatmap(lambda size: st.lists(element, min_size=size, max_size=size))


taints = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(TAINT_KEYS),
            "value": st.sampled_from(TAINT_VALUES),
            "effect": st.sampled_from(EFFECTS),
        }
    ),
    max_size=3,
    # the API takes a key with an effect once only
    unique_by=lambda taint: (taint["key"], taint["effect"]),
)


@st.composite
def allocatable(draw: st.DrawFn) -> dict[str, str]:
    """What a node offers."""
    amounts = {
        "cpu": draw(st.sampled_from(("8", "4", "16", "2", "1500m"))),
        "memory": draw(st.sampled_from(("16Gi", "8Gi", "4Gi", "2000000Ki"))),
        "pods": draw(st.sampled_from(("110", "110", "10", "5", "3"))),
    }
    extra = {GPU: ("2", "4", "1"), "hugepages-2Mi": ("64Mi", "8Mi"), "ephemeral-storage": ("10Gi", "1G")}
    return {**amounts, **draw(some(extra, 35))}


@st.composite
def node(draw: st.DrawFn, name: str, features: frozenset[str]) -> Object:
    """A node. Without the feature in question it has no taints, cordon or images."""
    labels = {HOSTNAME: name, **draw(some(NODE_LABELS, 80))}
    if draw(percent(5)):
        del labels[HOSTNAME]
    spec: Object = {}
    if "taints" in features:
        spec["taints"] = draw(taints)
        spec["unschedulable"] = draw(percent(10))
    amounts = draw(allocatable())
    status: Object = {"allocatable": amounts, "capacity": amounts}
    if "images" in features:
        held = draw(st.sets(st.sampled_from(sorted(IMAGES))))
        status["images"] = [{"names": IMAGES[image][0], "sizeBytes": IMAGES[image][1]} for image in sorted(held)]
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}


def nodes(features: frozenset[str]) -> st.SearchStrategy[list[Object]]:
    """2 to 10 nodes."""
    return st.integers(2, len(NODE_NAMES)).flatmap(
        lambda count: st.tuples(*(node(name, features) for name in NODE_NAMES[:count])).map(list)
    )
