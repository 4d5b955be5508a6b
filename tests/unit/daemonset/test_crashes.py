"""The real controller against a fake API server: something goes wrong at each write in turn, then at random.

What must hold whatever happens is said, and checked, in `support.daemonset_checks`.
"""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from support.daemonset_lab import AppsLab, Lab
from support.daemonset_objects import ZONES, override, rolling
from support.fake_cluster import Fault


def creation(lab):
    lab.calm()


def rollout(lab):
    lab.image = "v2"
    lab.edit()
    for _ in range(8):
        lab.calm()


def going_back(lab):
    lab.image = "v2"
    lab.edit()
    for _ in range(3):
        lab.calm()
    lab.image = "v1"
    lab.edit()
    for _ in range(5):
        lab.calm()


def history(lab):
    for image in ("v2", "v3", "v1"):
        lab.image = image
        lab.edit(revisionHistoryLimit=0)
        for _ in range(8):
            lab.calm()


def adoption(lab):
    lab.recreate(orphan=True)
    lab.add_pod("orphan", "n1")
    lab.label(next(iter(lab.server.objects["pods"])), "else")
    lab.calm()
    lab.calm()


def replacement(lab):
    lab.recreate(orphan=False)
    lab.calm()
    lab.collect_garbage()
    lab.calm()


def trouble(lab):
    """Pods fail, nodes get taints and go."""
    one, two, *_ = lab.server.objects["pods"]
    lab.kubelet(one, "Failed")
    lab.kubelet(two, "Succeeded")
    lab.taint("n2", "NoExecute")
    lab.remove_node("n1")
    for _ in range(3):
        lab.process.deliver_all()
        lab.step()
    lab.taint("n2", None)
    lab.calm()


STORIES: list[tuple[Callable[[Lab], None], dict]] = [
    (creation, {}),
    (rollout, rolling(maxUnavailable=2)),
    (rollout, rolling(maxUnavailable=0, maxSurge=2)),
    (going_back, rolling(maxUnavailable="50%")),
    (history, rolling(maxUnavailable=3)),
    (adoption, {}),
    (replacement, {}),
    (trouble, {}),
]


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize(("story", "spec"), STORIES, ids=[f"{s.__name__}{i}" for i, (s, _) in enumerate(STORIES)])
def test_a_fault_at_each_write_in_turn(make_lab, story, spec, fault):
    kind = AppsLab if story is rollout and fault in (Fault.LOST, Fault.DIE_AFTER) else Lab
    number = 0
    while True:
        lab = make_lab(kind, **spec)
        if story is not creation:
            lab.settle()
        lab.fault(number, fault)
        story(lab)
        if lab.process.client.faults:
            assert number > 0
            break  # there was no such write any more
        lab.settle()
        lab.close()
        number += 1


class Storm(RuleBasedStateMachine):
    """Everything at random: people, nodes, kubelets, caches of any age, faults and deaths."""

    @initialize(
        unavailable=st.sampled_from([1, 2, "50%"]),
        surge=st.sampled_from([0, 0, 1, 2]),
        min_ready=st.sampled_from([0, 0, 5]),
        limit=st.sampled_from([None, 0, 1]),
        kind=st.sampled_from([Lab, Lab, AppsLab]),
        once=st.sampled_from([False, False, True]),
    )
    def start(self, unavailable, surge, min_ready, limit, kind, once):
        spec = rolling(maxUnavailable=0 if surge else unavailable, maxSurge=surge)
        extra = {} if limit is None else {"revisionHistoryLimit": limit}
        if once and kind is Lab:
            extra["runOnce"] = True
        self.lab = kind(ZONES, minReadySeconds=min_ready, **spec, **extra)

    # -- the controller and what it sees -----------------------------------------------------------------------------

    @rule()
    def step(self):
        self.lab.step()

    @rule(plural=st.sampled_from(["pods", "pods", "nodes", "daemonsets", "controllerrevisions"]), n=st.integers(1, 8))
    def see(self, plural, n):
        self.lab.process.deliver(plural, n)
        self.lab.step()

    @rule(fault=st.sampled_from(list(Fault)), number=st.integers(0, 5))
    def a_write_will_go_wrong(self, fault, number):
        self.lab.fault(number, fault)

    @rule()
    def a_late_write_lands(self):
        self.lab.land()

    @rule()
    def another_process_takes_over(self):
        self.lab.restart()

    @rule(rounds=st.integers(1, 4))
    def all_is_well(self, rounds):
        for _ in range(rounds):
            self.lab.calm()

    # -- people ------------------------------------------------------------------------------------------------------

    @rule(image=st.sampled_from(["v1", "v2", "v3", "v4"]), zone=st.sampled_from(["", "", "", "a", "b"]))
    def the_template_changes(self, image, zone):
        self.lab.image, self.lab.selector = image, zone
        self.lab.edit()

    @rule(unavailable=st.sampled_from([1, 2, "100%"]), surge=st.sampled_from([0, 0, 1, "50%"]))
    def the_strategy_changes(self, unavailable, surge):
        self.lab.edit(**rolling(maxUnavailable=0 if surge else unavailable, maxSurge=surge))

    @rule()
    def old_pods_are_left_alone(self):
        self.lab.edit(updateStrategy={"type": "OnDelete", "rollingUpdate": None})

    @rule(
        extra=st.fixed_dictionaries(
            {},
            optional={
                "partition": st.sampled_from([1, "50%"]),
                "steps": st.sampled_from([[{"nodes": 1}], [{"nodes": 1}, {"nodes": "50%", "waitSeconds": 5}]]),
                "nodeSelector": st.just({"matchLabels": {"zone": "a"}}),
                "maxFailed": st.sampled_from([0, 1]),
                "onFailure": st.sampled_from(["Pause", "Rollback"]),
                "unavailablePods": st.just("WithinBudget"),
                "podUpdate": st.just("InPlaceIfPossible"),
                "prePull": st.sampled_from([{"maxParallel": 1}, {"maxParallel": 2}]),
            },
        ),
        surge=st.sampled_from([0, 0, 1]),
    )
    def the_rollout_is_controlled(self, extra, surge):
        if self.lab.kind is Lab.kind:
            self.lab.edit(**rolling(maxUnavailable=0 if surge else 1, maxSurge=surge, **extra))

    @rule(paused=st.booleans())
    def somebody_pauses(self, paused):
        if self.lab.kind is Lab.kind:
            self.lab.edit(paused=paused)

    @rule(value=st.sampled_from(["", "1", "2"]))
    def node_classes_change(self, value):
        if self.lab.kind is Lab.kind:
            self.lab.edit(nodeOverrides=[override(value)] if value else [])

    @rule(orphan=st.booleans())
    def it_is_made_anew(self, orphan):
        self.lab.recreate(orphan=orphan)

    @rule(node=st.sampled_from(sorted(ZONES)), name=st.sampled_from(["x", "y"]), owner=st.sampled_from(["", "other"]))
    def somebody_makes_a_pod(self, node, name, owner):
        if node in self.lab.server.objects["nodes"]:
            self.lab.add_pod(f"{name}-{owner}", node, owner=owner)

    @rule(data=st.data())
    def somebody_deletes_a_pod(self, data):
        if key := self.a_pod(data):
            self.lab.delete_pod(key)

    @rule(data=st.data(), value=st.sampled_from(["a", "else"]))
    def somebody_labels_a_pod(self, data, value):
        if key := self.a_pod(data):
            self.lab.label(key, value)

    def a_pod(self, data):
        pods = self.lab.server.objects["pods"]
        return data.draw(st.sampled_from(sorted(pods))) if pods else None

    # -- nodes and kubelets ------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(sorted(ZONES)), effect=st.sampled_from([None, "NoSchedule", "NoExecute"]))
    def a_taint_comes_or_goes(self, name, effect):
        self.lab.taint(name, effect)

    @rule(name=st.sampled_from(sorted(ZONES)), size=st.sampled_from([None, "big"]))
    def a_node_is_of_another_class(self, name, size):
        self.lab.resize(name, size)

    @rule(image=st.sampled_from(["v2", "v3", ""]))
    def an_image_is_bad_or_all_are_good(self, image):
        self.lab.kubelets.bad = {image} - {""}

    @rule(name=st.sampled_from(sorted(ZONES)), goes=st.booleans())
    def a_node_goes_or_comes(self, name, goes):
        if goes:
            self.lab.remove_node(name)
        else:
            self.lab.add_node(name, ZONES[name])

    @rule(data=st.data(), phase=st.sampled_from(["Running"] * 3 + ["Failed", "Succeeded"]), ready=st.booleans())
    def a_kubelet_acts(self, data, phase, ready):
        if key := self.a_pod(data):
            self.lab.kubelet(key, phase, ready=ready)

    @rule()
    def garbage_is_collected(self):
        self.lab.collect_garbage()

    @rule(seconds=st.sampled_from([0.3, 2, 20]))
    def time_passes(self, seconds):
        self.lab.tick(seconds)

    def teardown(self):
        if lab := getattr(self, "lab", None):
            try:
                lab.settle()
            finally:
                lab.close()


Storm.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    suppress_health_check=list(HealthCheck),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
TestStorm = Storm.TestCase
