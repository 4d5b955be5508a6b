"""Random cases.

What upstream leaves to chance is left out: it begins a partial rollout at any node, so nodes are all alike then, and
Pods of one age are told apart by their names, so cases in which a node can have two Pods are slow ones.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from differential.daemonsets.side import Object
from differential.daemonsets.steps import Case, Step, template
from differential.daemonsets.table import EVERY, affine, image, rolling, taint

PLACES = st.integers(0, 4)
TAINTS = (
    taint("dedicated"),
    taint("dedicated", "NoExecute"),
    taint("guard"),
    taint("guard", "PreferNoSchedule"),
    taint("node.kubernetes.io/unschedulable"),
    taint("node.kubernetes.io/not-ready", "NoExecute"),
    taint("node.kubernetes.io/network-unavailable"),
)
LABELS: dict[str, tuple[str | None, ...]] = {"disk": ("ssd", "hdd", None), "zone": ("a", "b", None)}
SPECS: dict[str, tuple[Any, ...]] = {
    "nodeSelector": ({"disk": "ssd"}, {"zone": "a"}),
    "affinity": (
        affine({"key": "zone", "operator": "In", "values": ["a"]}),
        affine({"key": "disk", "operator": "NotIn", "values": ["hdd"]}),
        affine({"key": "disk", "operator": "Exists"}, {"key": "zone", "operator": "DoesNotExist"}),
    ),
    "tolerations": (
        [{"key": "dedicated", "operator": "Exists"}],
        [{"key": "guard", "effect": "NoSchedule", "operator": "Exists"}],
        [{"operator": "Exists"}],
    ),
    "hostNetwork": (True,),
}
WHOLE = (rolling("100%"), {"type": "OnDelete"}, rolling(10))
PARTIAL = (rolling(1), rolling(2), rolling("50%"), rolling("34%"), {"type": "OnDelete"})
SURGING = (rolling(0, 1), rolling(0, 2), rolling(0, "40%"))


def some(draw: st.DrawFn, values: dict[str, tuple[Any, ...]], chance: int = 50) -> Object:
    """Some of the keys, each with one of its values; the chance is in percent."""
    return {key: draw(st.sampled_from(of)) for key, of in values.items() if draw(st.integers(1, 100)) <= chance}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A case of one of three kinds: nodes of all sorts, partial rollouts, surge."""
    kind = draw(st.sampled_from(("nodes", "nodes", "rollout", "rollout", "surge")))
    spec: Object = some(draw, {"minReadySeconds": (3600,), "revisionHistoryLimit": (0, 1, 2)}, 30)
    count = draw(st.integers(1, 4))
    if kind == "nodes":
        nodes = [(_labels(draw), _taints(draw)) for _ in range(count)]
        strategies: tuple[Object, ...] = WHOLE
        spec["template"] = template(**some(draw, SPECS, 40))
    else:
        nodes = [({}, [])] * count
        strategies = PARTIAL if kind == "rollout" else SURGING
    spec["updateStrategy"] = draw(st.sampled_from(strategies))
    steps: list[Step] = [("ready", EVERY)]
    for number in range(draw(st.integers(3, 7))):
        steps.append(_step(draw, kind, strategies, number))
    return Case(nodes, spec, steps, kubelet=draw(st.integers(1, 5)) > 1, slow=kind == "surge")


def _labels(draw: st.DrawFn) -> dict[str, str]:
    return {key: value for key, value in some(draw, LABELS, 80).items() if value is not None}


def _taints(draw: st.DrawFn) -> list[Object]:
    chosen = st.lists(st.sampled_from(TAINTS), max_size=2, unique_by=lambda t: t["key"])
    return draw(chosen) if draw(st.booleans()) else []


def _step(draw: st.DrawFn, kind: str, strategies: tuple[Object, ...], number: int) -> Step:
    steps = ["ready", "ready", "template", "template", "pod", "pod", "strategy", "undo", "again", "revision"]
    chosen = draw(st.sampled_from([*steps, *(["node"] * 6 if kind == "nodes" else ["add node"])]))
    if chosen == "ready":
        return ("ready", draw(st.sampled_from((1, 2, EVERY) if kind == "rollout" else (EVERY,))))
    if chosen == "node":
        return _node_step(draw)
    if chosen == "add node":
        return ("add node", {}, [])
    if chosen == "template":
        changed: Object = image(f"v{draw(st.integers(1, 3))}")
        if kind == "nodes":
            changed["spec"]["template"]["spec"] |= some(draw, {key: (*of, None) for key, of in SPECS.items()}, 30)
        return ("change", changed)
    if chosen == "pod":
        return _pod_step(draw)
    if chosen == "strategy":
        return (
            "change",
            {"spec": {"updateStrategy": {"rollingUpdate": None, **draw(st.sampled_from(strategies))}}},
        )
    if chosen == "again":
        return draw(st.sampled_from((("delete", "Background"), ("create", {}), ("nudge",))))
    if chosen == "revision":
        return ("delete revision", draw(PLACES))
    return ("undo", draw(PLACES))


def _node_step(draw: st.DrawFn) -> Step:
    chosen = draw(st.sampled_from(("add", "labels", "taints", "taints", "delete")))
    if chosen == "add":
        return ("add node", _labels(draw), _taints(draw))
    if chosen == "delete":
        return ("delete node", draw(PLACES))
    patch: Object = {"spec": {"taints": _taints(draw) or None}}
    if chosen == "labels":
        patch = {"metadata": {"labels": some(draw, LABELS, 80)}}
    return ("change node", draw(PLACES), patch)


def _pod_step(draw: st.DrawFn) -> Step:
    place = draw(PLACES)
    return draw(
        st.sampled_from(
            (("delete pod", place), ("unready", place), ("end", place, "Failed"), ("end", place, "Succeeded"))
        )
    )
