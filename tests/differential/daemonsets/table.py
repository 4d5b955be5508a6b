"""Cases that somebody thought of, one for each rule; random ones are in `cases`."""

from __future__ import annotations

from typing import Any

from differential.daemonsets.side import CONTAINER, Object
from differential.daemonsets.steps import LABELS, Case, template

EVERY = 1000
PLAIN: list[tuple[dict[str, str], list[Object]]] = [({}, [])] * 3
DISKS: list[tuple[dict[str, str], list[Object]]] = [
    ({"disk": "ssd", "zone": "a"}, []),
    ({"disk": "hdd", "zone": "a"}, []),
    ({"zone": "b"}, []),
]
MORE = ("ready", EVERY)


def taint(key: str, effect: str = "NoSchedule") -> Object:
    """A taint of a node."""
    return {"key": key, "effect": effect}


def taints(*found: Object) -> Object:
    """A patch of a node."""
    return {"spec": {"taints": list(found) or None}}


def labels(**changed: str | None) -> Object:
    """A patch of a node."""
    return {"metadata": {"labels": changed}}


def rolling(unavailable: Any = None, surge: Any = None) -> Object:
    """A rolling update."""
    numbers = {"maxUnavailable": unavailable, "maxSurge": surge}
    return {"type": "RollingUpdate", "rollingUpdate": {k: v for k, v in numbers.items() if v is not None}}


def image(name: str) -> Object:
    """A patch of the DaemonSet that gives it another image."""
    return {"spec": {"template": {"spec": {"containers": [{**CONTAINER, "image": name}]}}}}


def affine(*expressions: Object) -> Object:
    """Required node affinity, with a preference that is to stay."""
    preferred = {"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": list(expressions)}]
            },
            "preferredDuringSchedulingIgnoredDuringExecution": [preferred],
        }
    }


V2 = ("change", image("v2"))
V3 = ("change", image("v3"))
# Which nodes upstream begins with is random: where they are not alike, it must take all.
AT_ONCE = {"updateStrategy": rolling("100%")}
SURGE = {"updateStrategy": rolling(0, 1)}
GUARDED = {"key": "guard", "operator": "Exists"}
# Every field that the API server, Go's encoder or the default tolerations may treat in their own way.
ODD = template(
    hostNetwork=True,
    affinity=affine({"key": "zone", "operator": "In", "values": ["a", "b"]}),
    tolerations=[
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5},
        {"key": "node.kubernetes.io/disk-pressure", "operator": "Equal", "value": "x", "effect": "NoSchedule"},
        GUARDED,
    ],
    containers=[
        {
            "name": "c",
            "image": "v1",
            "env": [
                {"name": "A", "value": '<&>\u2028 \u00e9 \U0001f600 \x7f\t\b\f" \\ '},
                {"name": "EMPTY", "value": ""},
            ],
            "livenessProbe": {"httpGet": {"port": 80}},
            "resources": {"requests": {"cpu": "0.5", "memory": "1000Ki"}},
            "ports": [{"containerPort": 80, "hostPort": 80}],
        }
    ],
    volumes=[{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "s"}}],
    priorityClassName="system-node-critical",
)

CASES: dict[str, Case] = {
    "nodes come and go": Case(
        PLAIN,
        {},
        [
            ("add node", {}, []),
            MORE,
            ("add node", {}, [taint("dedicated")]),
            ("change node", 0, taints(taint("dedicated"))),
            ("change node", 1, taints(taint("dedicated", "NoExecute"))),
            ("change node", 2, taints(taint("dedicated", "PreferNoSchedule"))),
            ("change node", 0, taints()),
            ("delete node", 1),
            ("delete node", 0),
        ],
    ),
    "nodes go before their Pods are placed": Case(PLAIN, {}, [("delete node", 0), ("delete node", 1)], kubelet=False),
    "a node selector": Case(
        DISKS,
        {"template": template(nodeSelector={"disk": "ssd"}), **AT_ONCE},
        [
            MORE,
            ("change node", 0, labels(disk="hdd")),
            ("change node", 1, labels(disk="ssd")),
            ("change node", 2, labels(disk="ssd")),
            ("change", {"spec": {"template": {"spec": {"nodeSelector": {"disk": "hdd"}}}}}),
            MORE,
            ("change", {"spec": {"template": {"spec": {"nodeSelector": None}}}}),
        ],
    ),
    "node affinity": Case(
        DISKS,
        {"template": template(affinity=affine({"key": "zone", "operator": "In", "values": ["a"]})), **AT_ONCE},
        [
            ("change node", 2, labels(zone="a")),
            ("change node", 0, labels(zone="b")),
            ("change", {"spec": {"template": {"spec": {"affinity": None}}}}),
        ],
    ),
    "a node by its name": Case(PLAIN, {"template": template(nodeName="n1")}, [MORE, ("add node", {}, [])]),
    "tolerations": Case(
        [({}, [taint("guard")]), ({}, [taint("node.kubernetes.io/network-unavailable")]), ({}, [])],
        {"template": template(tolerations=[GUARDED]), **AT_ONCE},
        [
            MORE,
            ("change node", 0, taints(taint("node.kubernetes.io/unschedulable"))),
            ("change node", 1, taints(taint("node.kubernetes.io/not-ready", "NoExecute"))),
            ("change", {"spec": {"template": {"spec": {"hostNetwork": True}}}}),
            MORE,
            MORE,
            ("change", {"spec": {"template": {"spec": {"tolerations": None}}}}),
            MORE,
        ],
    ),
    "a template with everything": Case(
        DISKS, {"template": ODD, **AT_ONCE}, [MORE, V2, MORE, MORE, MORE, ("undo", 0), MORE]
    ),
    "a rolling update": Case([({}, [])] * 4, {}, [MORE, V2, *[("ready", 1)] * 4, ("undo", 0), MORE, MORE, MORE, MORE]),
    "a percentage": Case(
        [({}, [])] * 5, {"updateStrategy": rolling("30%")}, [MORE, V2, ("ready", 1), ("ready", 1), MORE, MORE]
    ),
    "updates in a row": Case(
        [({}, [])] * 4, {}, [MORE, V2, V3, ("change", image("v4")), ("ready", 1), MORE, MORE, MORE]
    ),
    "Pods that are not ready before an update": Case(
        [({}, [])] * 5,
        {"updateStrategy": {"type": "OnDelete"}},
        [MORE, ("unready", 0), ("unready", 0), V2, ("change", {"spec": {"updateStrategy": rolling(3)}}), ("ready", 1)],
    ),
    "all at once": Case(PLAIN, {"updateStrategy": rolling("100%")}, [MORE, V2, ("unready", 0), ("ready", 2), MORE]),
    "a strategy that changes on the way": Case(
        [({}, [])] * 4,
        {"updateStrategy": {"type": "OnDelete"}},
        [
            MORE,
            V2,
            ("delete pod", 0),
            MORE,
            ("change", {"spec": {"updateStrategy": rolling(2)}}),
            MORE,
            V3,
            ("change", {"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": None}}}),
            MORE,
        ],
    ),
    "surge": Case(PLAIN, SURGE, [MORE, V2, *[("ready", 1)] * 4, MORE, V3, MORE, MORE], slow=True),
    "surge in percent, with troubles": Case(
        [({}, [])] * 4,
        {"updateStrategy": rolling(0, "50%")},
        [
            MORE,
            ("unready", 0),
            ("change", image("v2")),
            ("end", 0, "Failed"),
            ("unready", 1),
            ("ready", 1),
            ("change", image("v3")),
            ("change node", 0, taints(taint("dedicated"))),
            ("ready", 2),
            MORE,
            MORE,
        ],
        slow=True,
    ),
    "surge back to plain": Case(
        PLAIN,
        SURGE,
        [MORE, V2, ("change", {"spec": {"updateStrategy": rolling(1, 0)}}), MORE, MORE, MORE],
        kubelet=False,
        slow=True,
    ),
    "minReadySeconds": Case(
        PLAIN,
        {"minReadySeconds": 3600, **AT_ONCE},
        [
            ("ready", 1, False),
            ("ready", 1),
            MORE,
            ("change", {"spec": {"minReadySeconds": 0}}),
            V2,
            ("ready", 1, False),
        ],
    ),
    "Pods end": Case(
        PLAIN, {}, [("end", 0, "Succeeded"), MORE, ("end", 1, "Failed"), ("end", 0, "Failed"), ("end", 0, "Succeeded")]
    ),
    "Pods end and something holds them": Case(
        PLAIN,
        {"template": {**template(), "metadata": {"labels": LABELS, "finalizers": ["example.com/hold"]}}},
        [MORE, ("end", 0, "Failed"), ("end", 1, "Succeeded"), ("delete pod", 0), V2],
    ),
    "Pods are deleted and are slow to end": Case(
        PLAIN, {}, [MORE, ("delete pod", 0), ("delete pod", 0), V2, ("add node", {}, [])], kubelet=False
    ),
    "adoption": Case(
        PLAIN,
        {"template": template(nodeSelector={"disk": "ssd"})},
        [
            ("orphan", 0, "stranger", False),
            ("change node", 1, labels(disk="ssd")),
            ("change node", 0, labels(disk="ssd")),
            ("orphan", 2, "of-ours", True),
            MORE,
        ],
        slow=True,
    ),
    "release": Case(
        PLAIN,
        {},
        [MORE, ("relabel", 0, {"app": "other"}), MORE, ("relabel", 0, {"app": "ds"}), ("relabel", 1, {"app": None})],
        slow=True,
    ),
    "orphaned and made anew": Case(
        PLAIN, {}, [MORE, V2, MORE, ("delete", "Orphan"), ("create", {}), MORE, MORE, V2, MORE], slow=True
    ),
    "deleted": Case(PLAIN, {}, [MORE, ("delete", "Background"), ("create", {}), MORE, ("delete", "Foreground")]),
    "no history": Case(
        PLAIN,
        {"revisionHistoryLimit": 0, "updateStrategy": {"type": "OnDelete"}},
        [MORE, V2, ("delete pod", 0), MORE, V3, ("delete pod", 0), ("delete pod", 0), ("delete pod", 0), MORE],
    ),
    "a short history": Case(
        PLAIN[:1],
        {"revisionHistoryLimit": 1},
        [MORE, V2, V3, ("undo", 0), MORE, ("change", image("v4")), ("undo", 1), MORE],
    ),
    "somebody deletes revisions": Case(
        PLAIN,
        {},
        [MORE, ("delete revision", 0), V2, ("ready", 1), ("delete revision", 1), ("delete revision", 0), MORE],
    ),
    "a name is taken": Case(
        PLAIN[:2],
        {"updateStrategy": {"type": "OnDelete"}},
        [MORE, V2, ("change", image("v1")), ("delete revision", 0), MORE, V2, MORE],
    ),
    "annotations are copied": Case(
        PLAIN[:1],
        {},
        [
            ("change", {"metadata": {"annotations": {"why": "a <reason>"}}}),
            V2,
            ("change", {"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}}),
            MORE,
        ],
    ),
    "Pods cannot be made": Case(
        PLAIN,
        {},
        [
            MORE,
            ("change", {"spec": {"template": {"spec": {"priorityClassName": "missing"}}}}),
            ("change", {"spec": {"template": {"spec": {"priorityClassName": None}}}}),
            MORE,
        ],
    ),
    "two of one selector": Case(
        [({"disk": "ssd"}, []), ({"disk": "hdd"}, [])],
        {"template": template(nodeSelector={"disk": "ssd"})},
        [("another", {"template": template(nodeSelector={"disk": "hdd"})}, "other"), MORE, V2, MORE],
    ),
}
