"""One case, held against upstream."""

from __future__ import annotations

from differential import compare
from differential.cases import Case
from differential.changes import CHANGE
from differential.clusters import Object
from differential.lab import Lab, key_of
from differential.ours import Ours
from nodewright.scheduler.objects import Pod
from nodewright.scheduler.profile import Profile


class Session:
    """A cluster with both schedulers in front of it."""

    def __init__(self, lab: Lab, case: Case, profile: Profile) -> None:
        self._lab = lab
        # The objects as they are meant, for the report, and as the API has them.
        self._nodes: dict[str, Object] = {node["metadata"]["name"]: node for node in case.nodes}
        self._placed: dict[str, Object] = {key_of(pod): pod for pod in case.pods}
        nodes, pods = lab.run(lab.reset(case.nodes, case.pods))
        self._pods: dict[str, Pod] = {pod.key: pod for pod in pods}
        self._ours = Ours(profile, lab.standing, nodes, pods)
        self._number = 0

    def take(self, step: Object) -> None:
        """Place a Pod, or let something happen. Raises AssertionError where the schedulers differ."""
        if CHANGE not in step:
            self._place(step)
        elif step[CHANGE].endswith("pod"):
            self._change_pod(step)
        else:
            self._change_node(step)

    # --- Pods -----------------------------------------------------------------------------------------------------

    def _place(self, body: Object) -> None:
        lab, ours = self._lab, self._ours
        created = lab.run(lab.create(body))
        kept, fresh = ours.decide(created), ours.decide_anew(created)
        verdict = lab.run(lab.verdict(created, evicts=bool(kept.victims)))
        if found := compare.differences(verdict, kept, fresh):
            nodes, placed = list(self._nodes.values()), list(self._placed.values())
            raise AssertionError(compare.report(found, nodes, placed, body, verdict, fresh))
        if verdict.node:
            self._now(created, lab.run(lab.start(verdict.pod, body)))
            self._placed[created.key] = {**body, "spec": {**body["spec"], "nodeName": verdict.node}}
            return
        for victim in verdict.victims:
            self._now(self._pods[victim.key], victim)
            placed = self._placed[victim.key]
            self._placed[victim.key] = {**placed, "metadata": {**placed["metadata"], "deletionTimestamp": "(set)"}}
        ours.change_pod(created, None)
        lab.run(lab.delete_pod(verdict.pod))

    def _change_pod(self, change: Object) -> None:
        key = f"{change['namespace']}/{change['name']}"
        pod = self._pods.get(key)
        if pod is None:
            return
        if change[CHANGE] == "delete pod":
            self._lab.run(self._lab.delete_pod(pod))
            self._ours.change_pod(pod, None)
            del self._pods[key], self._placed[key]
            return
        self._now(pod, self._lab.run(self._lab.label_pod(pod, change["labels"])))
        placed = self._placed[key]
        labels = _merged(placed["metadata"]["labels"], change["labels"])
        self._placed[key] = {**placed, "metadata": {**placed["metadata"], "labels": labels}}

    def _now(self, before: Pod, after: Pod) -> None:
        self._ours.change_pod(before, after)
        self._pods[after.key] = after

    # --- nodes ----------------------------------------------------------------------------------------------------

    def _change_node(self, change: Object) -> None:
        lab, ours = self._lab, self._ours
        if change[CHANGE] == "replace node":
            node = change["node"]
            name = node["metadata"]["name"]
            if name in self._nodes:
                self._delete_node(name)
            ours.change_node(lab.run(lab.replace_node(node)), name)
            self._nodes[name] = node
            return
        name = change["name"]
        if name not in self._nodes:
            return
        if change[CHANGE] == "delete node":
            # The last one stays: without nodes, upstream says the same to every Pod.
            if len(self._nodes) > 1:
                self._delete_node(name)
            return
        self._number += 1
        ours.change_node(lab.run(lab.change_node(change, self._number)), name)
        self._nodes[name] = _changed(self._nodes[name], change)

    def _delete_node(self, name: str) -> None:
        self._lab.run(self._lab.delete_node(name))
        self._ours.change_node(None, name)
        del self._nodes[name]


def _changed(node: Object, change: Object) -> Object:
    """A node after a change."""
    labels = _merged(node["metadata"]["labels"], change.get("labels", {}))
    amounts = change.get("allocatable", node["status"]["allocatable"])
    return {
        "metadata": {**node["metadata"], "labels": labels},
        "spec": {**node["spec"], **change.get("spec", {})},
        "status": {**node["status"], "allocatable": amounts, "capacity": amounts},
    }


def _merged(labels: dict[str, str], patch: dict[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in {**labels, **patch}.items() if value is not None}


def hold(lab: Lab, case: Case, profile: Profile) -> None:
    """Go through a case with both schedulers. Raises AssertionError, with all that matters, at the first difference."""
    session = Session(lab, case, profile)
    for step in case.steps:
        session.take(step)
