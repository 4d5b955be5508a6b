"""As `test_crashes`, for what our DaemonSets have beyond apps/v1: something goes wrong at each write in turn."""

from collections import Counter
from collections.abc import Callable

import pytest

from support.daemonset_lab import Lab
from support.daemonset_objects import ZONES, override, rolling
from support.fake_cluster import Fault

FAULTS = list(Fault)
LATE = (Fault.SLOW, Fault.DIE_LATE)


def sized(value):
    return {"nodeOverrides": [override(value)]}


def uids(lab):
    """By node, of the pods that are not being deleted."""
    return {node: [p.metadata.uid for p in lab.live(node)] for node in ZONES}


def images(lab):
    """By node, of the DaemonSet's pods."""
    pods = lab.server.objects["pods"]
    return {n: [pods[p.key]["spec"]["containers"][0]["image"] for p in lab.live(n)] for n in ZONES}


def made_with(lab, image):
    """How many pods were made with this image, pullers left out."""
    bodies = [body for _, type_, body in lab.server.log["pods"] if type_ == "ADDED"]
    return sum(f'"image":"{image}"'.encode() in body and b"pre-pull-of" not in body for body in bodies)


def reason(lab):
    return next(c.reason for c in lab.ds.status.conditions if c.type == "Progressing")


def to(lab, image, **spec):
    lab.image = image
    lab.edit(**spec)
    lab.rest()


def another(lab):
    """Another controller takes over, to whom the fault happens if it is still to come."""
    faults = lab.process.client.faults
    lab.restart()
    lab.process.client.faults = faults


# --- stories: each ends with what must be so, whatever went wrong ---------------------------------------------------


def in_place(lab, fault):
    before = uids(lab)
    to(lab, "v2")
    assert uids(lab) == before
    assert images(lab) == {node: ["v2"] for node in ZONES}
    restarts = [p["status"]["containerStatuses"][0]["restartCount"] for p in lab.server.objects["pods"].values()]
    assert restarts == [1, 1, 1]


def in_place_and_bad(lab, fault):
    """A bad image stops where the budget ends; those pods are made anew, the others stay."""
    before = uids(lab)
    lab.kubelets.bad.add("v2")
    to(lab, "v2")
    hit = {node for node, found in images(lab).items() if found == ["v2"]}
    assert len(hit) == 1
    assert uids(lab) == before
    to(lab, "v3")
    kept = {node for node, found in uids(lab).items() if found == before[node]}
    assert kept == ZONES.keys() - hit


def in_place_once_more(lab, fault):
    """The template changes again while the pods restart."""
    before = uids(lab)
    lab.image = "v2"
    lab.edit()
    lab.process.deliver_all()
    lab.step()
    to(lab, "v3")
    assert images(lab) == {node: ["v3"] for node in ZONES}
    assert uids(lab).keys() == before.keys()


def in_place_after_pulls(lab, fault):
    before = uids(lab)
    to(lab, "v2")
    assert uids(lab) == before
    assert not lab.pullers()


def pre_pull(lab, fault):
    to(lab, "v2")
    assert images(lab) == {node: ["v2"] for node in ZONES}
    assert not lab.pullers()


def bad_pulls(lab, fault):
    """Pods stay while their successors' image can't be pulled; nothing is left of the pulls in the end."""
    before = uids(lab)
    lab.kubelets.bad.add("v2")
    to(lab, "v2")
    assert uids(lab) == before
    assert lab.pullers()
    to(lab, "v3")
    assert images(lab) == {node: ["v3"] for node in ZONES}
    assert not lab.pullers()


def evicted_pullers(lab, fault):
    lab.image = "v2"
    lab.edit()
    for _ in range(2):
        lab.process.deliver_all()
        lab.step()
        for puller in lab.pullers():
            lab.kubelet(puller.key, "Failed")
    lab.rest()
    assert images(lab) == {node: ["v2"] for node in ZONES}
    assert not lab.pullers()


def pullers_of_a_daemonset_made_anew(lab, fault):
    lab.image = "v2"
    lab.edit()
    for _ in range(2):
        lab.process.deliver_all()
        lab.step()
    lab.recreate(orphan=True)
    lab.rest()
    assert images(lab) == {node: ["v2"] for node in ZONES}
    assert not lab.pullers()


def sizes(lab, fault):
    """Only the pods that it is about are replaced."""
    before = uids(lab)
    lab.resize("n1", "big")
    lab.rest()
    lab.edit(**sized("2"))
    lab.rest()
    after = uids(lab)
    assert [after[node] == before[node] for node in sorted(ZONES)] == [True, False, True]
    lab.resize("n1", None)
    lab.resize("n2", "big")
    lab.rest()


def runs(lab, fault):
    """Each template runs once on each node, on a new one, too."""
    lab.rest()
    to(lab, "v2")
    lab.add_node("n3", "a")
    lab.rest()
    if fault not in LATE:
        assert set(lab.kubelets.runs.values()) == {1}, lab.kubelets.runs
        nodes = Counter(hash_value for _, hash_value in lab.kubelets.runs)
        assert sorted(nodes.values()) == [3, 4]


def runs_that_fail(lab, fault):
    lab.image = "v2"
    lab.edit()
    for _ in range(3):
        lab.process.deliver_all()
        lab.step()
        for key, pod in list(lab.server.objects["pods"].items()):
            if pod["status"]["phase"] in ("Pending", "Running"):
                lab.kubelet(key, "Failed")
    lab.rest()
    assert images(lab) == {node: ["v2"] for node in ZONES}


def stopped(lab, fault):
    """The rollout of a bad image stops, and a controller that starts does not begin it anew."""
    lab.kubelets.bad.add("v2")
    to(lab, "v2")
    another(lab)
    lab.rest()
    assert reason(lab) == "RolloutFailed"
    assert sorted(images(lab).values()) == [["v1"], ["v1"], ["v2"]]


def gone_back(lab, fault):
    """All go back to the old template; the bad one is tried on one node, and never again."""
    lab.kubelets.bad.add("v2")
    to(lab, "v2")
    another(lab)
    lab.rest()
    assert reason(lab) == "RolloutFailed"
    assert images(lab) == {node: ["v1"] for node in ZONES}
    if fault not in LATE:
        assert made_with(lab, "v2") == 1


def gone_back_in_place(lab, fault):
    before = uids(lab)
    lab.kubelets.bad.add("v2")
    to(lab, "v2")
    assert reason(lab) == "RolloutFailed"
    assert images(lab) == {node: ["v1"] for node in ZONES}
    assert sum(found == before[node] for node, found in uids(lab).items()) == 2


def gone_back_before_any_pod_went(lab, fault):
    """Failing pulls count."""
    before = uids(lab)
    lab.kubelets.bad.add("v2")
    to(lab, "v2")
    assert reason(lab) == "RolloutFailed"
    assert uids(lab) == before
    assert not lab.pullers()


IN_PLACE = {"podUpdate": "InPlaceIfPossible"}
PULL = {"prePull": {"maxParallel": 2}}
BACK = {"maxFailed": 0, "onFailure": "Rollback"}

STORIES: list[tuple[Callable[[Lab, Fault], None], dict]] = [
    (in_place, rolling(maxUnavailable=2, **IN_PLACE)),
    (in_place_and_bad, rolling(maxUnavailable=1, **IN_PLACE)),
    (in_place_once_more, {**rolling(maxUnavailable=2, **IN_PLACE), "minReadySeconds": 4}),
    (in_place_after_pulls, rolling(maxUnavailable=2, **IN_PLACE, **PULL)),
    (pre_pull, rolling(maxUnavailable=2, **PULL)),
    (pre_pull, rolling(maxUnavailable=0, maxSurge=1, **PULL)),
    (bad_pulls, rolling(maxUnavailable=2, **PULL)),
    (evicted_pullers, rolling(maxUnavailable=2, **PULL)),
    (pullers_of_a_daemonset_made_anew, rolling(maxUnavailable=1, **PULL)),
    (sizes, {**rolling(maxUnavailable=1), **sized("1")}),
    (runs, {**rolling(maxUnavailable=2), "runOnce": True}),
    (runs_that_fail, {**rolling(maxUnavailable=2), "runOnce": True}),
    (stopped, rolling(maxUnavailable=1, maxFailed=0)),
    (gone_back, rolling(maxUnavailable=1, **BACK)),
    (gone_back_in_place, rolling(maxUnavailable=1, **IN_PLACE, **BACK)),
    (gone_back_before_any_pod_went, rolling(maxUnavailable=1, **PULL, **BACK)),
]


@pytest.mark.parametrize("shift", [0, 3, 6])
@pytest.mark.parametrize(("story", "spec"), STORIES, ids=[f"{s.__name__}{i}" for i, (s, _) in enumerate(STORIES)])
def test_a_fault_at_each_write_in_turn(make_lab, story, spec, shift):
    """At each write three faults of all kinds, in turn: the stories are long."""
    number = 0
    while True:
        fault = FAULTS[(number + shift) % len(FAULTS)]
        lab = make_lab(**spec)
        if story is not runs:
            lab.rest()
        lab.fault(number, fault)
        story(lab, fault)
        if lab.process.client.faults:
            assert number > 0
            break  # there was no such write any more
        lab.settle()
        lab.close()
        number += 1
