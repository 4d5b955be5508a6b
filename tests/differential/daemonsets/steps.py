"""What happens in a case: the steps, and how each is taken on one side.

A step names nodes and Pods by their place in an order that does not depend on names, so that on both sides it meets
the same, also after upstream has picked nodes at random.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from differential.daemonsets.picture import HASH, node_state, pod_state, ready_since, revision_hash
from differential.daemonsets.side import CONTAINER, LONG_AGO, TIMEOUT, Object, Side, node_of
from nodewright.kube.client import PatchType
from nodewright.kube.resources import APPS_DAEMONSETS, CONTROLLERREVISIONS, NODES, PODS
from nodewright.kube.times import now_rfc3339

Step = tuple[Any, ...]
LABELS = {"app": "ds"}


class Case(msgspec.Struct):
    """A cluster, a DaemonSet in it (its spec without selector), and what happens then.

    With `kubelet`, Pods are bound at once, and end at once when they are deleted. `slow` puts a second between two
    steps: where a node can have two Pods, their age decides, which the API keeps in seconds.
    """

    nodes: list[tuple[dict[str, str], list[Object]]]
    spec: Object
    steps: list[Step]
    kubelet: bool = True
    slow: bool = False


def template(**spec: Any) -> Object:
    """A Pod template."""
    plain = {"containers": [CONTAINER], "automountServiceAccountToken": False}
    return {"metadata": {"labels": LABELS}, "spec": {**plain, **spec}}


async def create(side: Side, spec: Object, name: str = "ds") -> None:
    """Create the DaemonSet."""
    body = {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": LABELS}, "template": template(), **spec}}
    await side.create(APPS_DAEMONSETS, body)


# --- choosing ---------------------------------------------------------------------------------------------------------


def nodes_in_order(side: Side) -> list[Object]:
    """The nodes by what they are like."""
    return sorted(
        side.all(NODES), key=lambda node: (node_state(side, node["metadata"]["name"]), node["metadata"]["name"])
    )


def pods_in_order(side: Side, wanted: Callable[[Object], bool] = lambda _: True) -> list[Object]:
    """The Pods that are not being deleted, by what they and their nodes are like."""
    found = [pod for pod in side.all(PODS) if "deletionTimestamp" not in pod["metadata"] and wanted(pod)]

    def order(pod: Object) -> tuple[str, str, str]:
        return (pod_state(side, pod), node_state(side, node_of(pod)), pod["metadata"]["name"])

    return sorted(found, key=order)


def _is_alive(pod: Object) -> bool:
    return pod["status"].get("phase") not in ("Failed", "Succeeded")


def _pick(found: list[Object], place: int) -> list[Object]:
    """One of them, if there is any."""
    return [found[place % len(found)]] if found else []


# --- nodes ------------------------------------------------------------------------------------------------------------


async def add_node(side: Side, labels: dict[str, str], taints: list[Object]) -> None:
    """A node comes."""
    await side.add_node(labels, taints)


async def change_node(side: Side, place: int, patch: Object) -> None:
    """Labels or taints of a node change. Upstream passes over what changes its status only, so it gets a reason."""
    for node in _pick(nodes_in_order(side), place):
        await side.patch(NODES, node["metadata"]["name"], patch)
        await side.caught_up()
    await nudge(side)


async def delete_node(side: Side, place: int) -> None:
    """A node goes. Upstream looks at its Pods when it next has a reason to, so it gets one."""
    for node in _pick(nodes_in_order(side), place):
        await side.delete(NODES, node)
        await side.caught_up()
    await nudge(side)


async def nudge(side: Side) -> None:
    """Make the controller look at the DaemonSet."""
    for ds in side.all(APPS_DAEMONSETS):
        count = int(ds["metadata"].get("labels", {}).get("nudge", 0))
        await side.patch(APPS_DAEMONSETS, ds["metadata"]["name"], {"metadata": {"labels": {"nudge": str(count + 1)}}})


# --- Pods -------------------------------------------------------------------------------------------------------------


async def ready(side: Side, count: int, long: bool = True) -> None:
    """So many Pods become ready: long ago, or just now."""
    for pod in pods_in_order(side, lambda pod: _is_alive(pod) and ready_since(pod) is None)[:count]:
        await side.set_status(pod, "Running", LONG_AGO if long else now_rfc3339())


async def unready(side: Side, place: int) -> None:
    """A Pod is not ready any more."""
    for pod in _pick(pods_in_order(side, lambda pod: ready_since(pod) is not None), place):
        await side.set_status(pod, "Running", None)


async def end(side: Side, place: int, phase: str) -> None:
    """A Pod fails or succeeds."""
    for pod in _pick(pods_in_order(side, _is_alive), place):
        await side.set_status(pod, phase, None)


async def delete_pod(side: Side, place: int) -> None:
    """Somebody deletes a Pod."""
    for pod in _pick(pods_in_order(side), place):
        await side.delete(PODS, pod)


async def relabel(side: Side, place: int, labels: dict[str, str | None]) -> None:
    """Labels of a Pod change."""
    for pod in _pick(pods_in_order(side), place):
        await side.patch(PODS, pod["metadata"]["name"], {"metadata": {"labels": labels}})


async def orphan(side: Side, place: int, name: str, has_hash: bool) -> None:
    """A Pod that nobody owns is there, on a node, with labels that the DaemonSet selects."""
    labels = dict(LABELS)
    newest = max(side.all(CONTROLLERREVISIONS), key=lambda r: r["revision"], default=None)
    if has_hash and newest is not None:
        labels[HASH] = revision_hash(newest)
    for node in _pick(nodes_in_order(side), place):
        spec = {**template()["spec"], "nodeName": node["metadata"]["name"]}
        await side.create(PODS, {"metadata": {"name": name, "labels": labels}, "spec": spec})


# --- the DaemonSet ----------------------------------------------------------------------------------------------------


async def change(side: Side, patch: Object) -> None:
    """A merge patch of the DaemonSet."""
    if side.daemonset():
        await side.patch(APPS_DAEMONSETS, "ds", patch)


async def undo(side: Side, back: int) -> None:
    """`kubectl rollout undo`: the data of an older revision is a patch."""
    older = sorted(side.all(CONTROLLERREVISIONS), key=lambda r: -r["revision"])[1:]
    for revision in _pick(older, back):
        if side.daemonset():
            await side.patch(APPS_DAEMONSETS, "ds", revision["data"], PatchType.STRATEGIC)


async def delete_revision(side: Side, place: int) -> None:
    """Somebody deletes a revision."""
    for revision in _pick(sorted(side.all(CONTROLLERREVISIONS), key=lambda r: r["revision"]), place):
        await side.delete(CONTROLLERREVISIONS, revision)


async def disown_revision(side: Side) -> None:
    """The newest revision makes way for a stranger's of the same name."""
    newest = max(side.all(CONTROLLERREVISIONS), key=lambda r: r["revision"])
    name = newest["metadata"]["name"]
    await side.delete(CONTROLLERREVISIONS, newest)
    body = {"metadata": {"name": name}, "data": {"a": "stranger's"}, "revision": 1}
    await side.create(CONTROLLERREVISIONS, body)


async def delete(side: Side, policy: str) -> None:
    """The DaemonSet is deleted; Pods and revisions go with it or stay."""
    found = side.daemonset()
    if not found:
        return
    await side.delete(APPS_DAEMONSETS, found, propagation_policy=policy)
    if policy == "Foreground":
        return  # it goes after its Pods, which may need a kubelet

    def is_done() -> bool:
        owned = [o for o in (*side.all(PODS), *side.all(CONTROLLERREVISIONS)) if o["metadata"].get("ownerReferences")]
        waits = [o for o in owned if "deletionTimestamp" not in o["metadata"]]
        return side.daemonset() is None and not waits

    await side.until(is_done, "the garbage collector has done its work", TIMEOUT)


async def create_again(side: Side, spec: Object) -> None:
    """The DaemonSet is made anew, unless it is there."""
    if not side.daemonset():
        await create(side, spec)


STEPS: dict[str, Callable[..., Awaitable[None]]] = {
    "add node": add_node,
    "change node": change_node,
    "delete node": delete_node,
    "nudge": nudge,
    "ready": ready,
    "unready": unready,
    "end": end,
    "delete pod": delete_pod,
    "relabel": relabel,
    "orphan": orphan,
    "change": change,
    "undo": undo,
    "delete revision": delete_revision,
    "disown revision": disown_revision,
    "delete": delete,
    "create": create_again,
    "another": create,
}


def told(case: Case, done: int) -> str:
    """A case up to a step, as text."""
    steps = "\n".join(f"  {'->' if n == done else '  '} {json.dumps(step)}" for n, step in enumerate(case.steps))
    return f"nodes {case.nodes}\nspec {json.dumps(case.spec)}\nkubelet {case.kubelet}, slow {case.slow}\n{steps}"
