"""One case, held against upstream."""

from __future__ import annotations

from differential import compare
from differential.cases import Case
from differential.lab import Lab
from differential.ours import Ours

from nodewright.scheduler.profile import Profile


def hold(lab: Lab, case: Case, profile: Profile) -> None:
    """Ask both about all Pods of a case. Raises AssertionError, with all that matters, at the first difference."""
    ours = Ours(profile, lab.standing, *lab.run(lab.reset(case.nodes, case.pods)))
    placed = list(case.pods)
    for body in case.incoming:
        created = lab.run(lab.create(body))
        kept, fresh = ours.decide(created), ours.decide_anew(created)
        verdict = lab.run(lab.verdict(created))
        if found := compare.differences(verdict, kept, fresh):
            raise AssertionError(compare.report(found, case.nodes, placed, body, verdict, fresh))
        if verdict.node:
            ours.settle(created, verdict.pod)
            placed.append({**body, "spec": {**body["spec"], "nodeName": verdict.node}})
        else:
            ours.settle(created, None)
            lab.run(lab.remove(verdict.pod))
