"""One case, held against upstream."""

from __future__ import annotations

from differential import compare
from differential.cases import Case
from differential.clusters import Object
from differential.lab import Lab
from differential.ours import Ours
from nodewright.scheduler.objects import Pod
from nodewright.scheduler.profile import Profile


class Session:
    """A cluster with both schedulers in front of it."""

    def __init__(self, lab: Lab, case: Case, profile: Profile) -> None:
        self._lab = lab
        self._nodes = case.nodes
        self._placed: list[Object] = list(case.pods)
        nodes, pods = lab.run(lab.reset(case.nodes, case.pods))
        self._pods: dict[str, Pod] = {pod.metadata.uid: pod for pod in pods}
        self._ours = Ours(profile, lab.standing, nodes, pods)

    def place(self, body: Object) -> None:
        """Ask both about a Pod, and let upstream's decision come true. Raises AssertionError where they differ."""
        lab, ours = self._lab, self._ours
        created = lab.run(lab.create(body))
        kept, fresh = ours.decide(created), ours.decide_anew(created)
        verdict = lab.run(lab.verdict(created, evicts=bool(kept.victims)))
        if found := compare.differences(verdict, kept, fresh):
            raise AssertionError(compare.report(found, self._nodes, self._placed, body, verdict, fresh))
        if verdict.node:
            bound = lab.run(lab.start(verdict.pod, body))
            self._settle(created, bound)
            self._placed.append({**body, "spec": {**body["spec"], "nodeName": verdict.node}})
            return
        for victim in verdict.victims:
            self._settle(self._pods[victim.metadata.uid], victim)
            self._note_ending(victim)
        ours.settle(created, None)
        lab.run(lab.remove(verdict.pod))

    def _settle(self, before: Pod, after: Pod) -> None:
        self._ours.settle(before, after)
        self._pods[after.metadata.uid] = after

    def _note_ending(self, victim: Pod) -> None:
        """For the report: this Pod is ending from now on."""
        for index, body in enumerate(self._placed):
            meta = body["metadata"]
            if (meta["namespace"], meta["name"]) == (victim.metadata.namespace, victim.metadata.name):
                self._placed[index] = {**body, "metadata": {**meta, "deletionTimestamp": "(now)"}}


def hold(lab: Lab, case: Case, profile: Profile) -> None:
    """Ask both about all Pods of a case. Raises AssertionError, with all that matters, at the first difference."""
    session = Session(lab, case, profile)
    for body in case.incoming:
        session.place(body)
