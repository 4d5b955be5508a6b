from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.controllers.daemonset.decide import decide
from nodewright.controllers.daemonset.model import HASH_LABEL, RolloutStatus
from nodewright.controllers.daemonset.steps import advance, released, seconds_left, selected
from nodewright.kube.times import format_rfc3339, parse_rfc3339
from support.daemonset_objects import NOW, RUN, STAY, daemonset, node, pod, view

STABLE = {"currentRevision": "old"}
EARLIER = "2026-03-01T11:59:00Z"


def rolling_view(state, rolling, *, labels=None, **more):
    """A view of nodes n0, n1, ...: `o` old, `n` new, `u` new and not available, `-` none, `d` old one being deleted."""
    pods, nodes = [], {}
    for i, letter in enumerate(state):
        name = f"n{i}"
        nodes[name] = node(name, (labels or {}).get(name, {}))
        if letter != "-":
            hash_value = "new" if letter in "nu" else "old"
            pods.append(pod(f"p{i}", name, hash=hash_value, ready=letter != "u", deleting=letter == "d"))
    status = {**STABLE, **more.pop("status", {})}
    return view(pods, dict.fromkeys(nodes, RUN), nodes=nodes, rolling=rolling, status=status, **more)


def open_nodes(state, rolling, done=0, **more):
    return sorted(released(rolling_view(state, rolling, **more), done))


def step(state, rolling, done=0, since=None, frozen=False, **more):
    seen = rolling_view(state, rolling, **more)
    return advance(seen, RolloutStatus(revision="new", step=done, step_ready_time=since), frozen=frozen)


CANARY = {"matchLabels": {"canary": "yes"}}


@pytest.mark.parametrize(
    ("state", "partition", "expected"),
    [
        ("oooo", 0, ["n0", "n1", "n2", "n3"]),
        ("oooo", 3, ["n0"]),
        ("oooo", "50%", ["n0", "n1"]),
        ("ooo", "50%", ["n0"]),  # rounded up: two are kept
        ("oooo", 9, []),
        ("ooon", 3, ["n3"]),  # what is updated counts first
        ("oonn", 3, ["n2"]),  # no node is set back, the surplus just counts no more
        ("o-oo", 3, ["n1"]),  # nothing is lost there
        ("ood-", 3, ["n2"]),
        ("odu-", 3, ["n2"]),
    ],
)
def test_the_partition_keeps_the_last_ones(state, partition, expected):
    assert open_nodes(state, {"partition": partition}) == expected


def test_only_nodes_in_scope_count():
    labels = {"n1": {"canary": "yes"}, "n3": {"canary": "yes"}}
    assert open_nodes("oooo", {"nodeSelector": CANARY}, labels=labels) == ["n1", "n3"]
    assert open_nodes("oooo", {"nodeSelector": CANARY, "partition": "50%"}, labels=labels) == ["n1"]
    steps = {"nodeSelector": CANARY, "steps": [{"nodes": "50%"}, {"nodes": 5}]}
    assert open_nodes("oooo", steps, labels=labels) == ["n1"]
    assert open_nodes("oooo", steps, 1, labels=labels) == ["n1", "n3"]
    assert open_nodes("oooo", steps, 2, labels=labels) == ["n1", "n3"]


def test_nodes_that_keep_a_pod_they_should_not_have_come_last():
    pods = [pod("a", "n1", hash="old"), pod("b", "n2", hash="old")]
    verdicts = {"n1": RUN, "n2": STAY}
    everywhere = {"steps": [{"nodes": "100%"}]}
    for rolling, expected in (({}, {"n1", "n2"}), ({"partition": 1}, set()), (everywhere, {"n1", "n2"})):
        assert set(released(view(pods, verdicts, rolling=rolling, status=STABLE), 0)) == expected


def test_each_step_adds_nodes():
    steps = {"steps": [{"nodes": 1}, {"nodeSelector": CANARY}, {"nodes": "50%"}]}
    labels = {"n0": {"canary": "yes"}, "n3": {"canary": "yes"}}
    # n0 is left to the step that names it
    assert [open_nodes("oooooo", steps, done, labels=labels) for done in range(4)] == [
        ["n1"],
        ["n0", "n1", "n3"],
        ["n0", "n1", "n2", "n3", "n4", "n5"],
        ["n0", "n1", "n2", "n3", "n4", "n5"],
    ]


def test_the_partition_takes_from_the_last_steps():
    steps = {"partition": 2, "steps": [{"nodeSelector": CANARY}, {"nodes": 3}]}
    labels = {"n3": {"canary": "yes"}}
    assert [open_nodes("oooo", steps, done, labels=labels) for done in range(3)] == [["n3"], ["n0", "n3"], ["n0", "n3"]]


def test_the_partition_leaves_updated_nodes_in_even_before_those_of_a_step():
    steps = {"partition": 3, "steps": [{"nodeSelector": CANARY}]}
    labels = {"n3": {"canary": "yes"}}
    assert [open_nodes("nooo", steps, done, labels=labels) for done in range(2)] == [[], ["n0"]]


def test_a_new_node_takes_no_turn_from_updated_ones():
    steps = {"steps": [{"nodes": 2}, {"nodes": 1}]}
    assert open_nodes("-onno", steps) == ["n2", "n3"]
    assert open_nodes("-onno", steps, 1) == ["n0", "n2", "n3"]


def test_a_step_by_number_keeps_its_node_beside_a_later_one_by_selector():
    """n0 came, or got its label, after n2 was chosen: the second step still is a step of its own."""
    steps = {"steps": [{"nodes": 1}, {"nodeSelector": CANARY, "waitForResume": True}]}
    labels = {"n0": {"canary": "yes"}}
    assert open_nodes("non", steps, labels=labels) == ["n2"]
    assert step("non", steps, 1, labels=labels) == (1, NOW)


def test_on_delete_has_no_steps():
    seen = rolling_view("oo", {"partition": 1, "steps": [{"nodes": 1}]}, strategy="OnDelete")
    assert set(released(seen, 0)) == {"n0", "n1"}


@pytest.mark.parametrize(
    ("state", "first", "expected"),
    [
        ("ooo", {"nodes": 1}, (0, None)),
        ("uoo", {"nodes": 1}, (0, None)),
        ("noo", {"nodes": 1}, (1, None)),
        ("nuo", {"nodes": 2}, (0, None)),
        ("nuo", {"nodes": 2, "minAvailable": 1}, (1, None)),
        ("nuo", {"nodes": 2, "minAvailable": "50%"}, (1, None)),
        ("nuo", {"nodes": 2, "minAvailable": "51%"}, (0, None)),
        ("ooo", {"nodes": 2, "minAvailable": 0}, (1, None)),
        ("noo", {"nodes": 1, "waitSeconds": 60}, (0, NOW)),
        ("noo", {"nodes": 1, "waitForResume": True}, (0, NOW)),
        ("ooo", {"nodes": 0, "waitForResume": True}, (1, None)),  # without nodes there is nothing to wait for
    ],
)
def test_when_a_step_is_done(state, first, expected):
    assert step(state, {"steps": [first, {"nodes": 1, "waitForResume": True}]}) == expected


def test_several_steps_pass_in_one_look():
    assert step("nno", {"steps": [{"nodes": 1}, {"nodes": 1}, {"nodes": 1}]}) == (2, None)
    assert step("nnn", {"steps": [{"nodes": 1}, {"nodes": 1}, {"nodes": 1}]}) == (3, None)


def test_a_step_waits_from_when_it_was_ready():
    rolling = {"steps": [{"nodes": 1, "waitSeconds": 61}]}
    assert step("no", rolling, since=EARLIER) == (0, EARLIER)
    assert seconds_left(rolling_view("no", rolling), RolloutStatus(step=0, step_ready_time=EARLIER)) == 1
    assert step("no", rolling | {"steps": [{"nodes": 1, "waitSeconds": 60}]}, since=EARLIER) == (1, None)


def test_the_wait_begins_anew_when_the_budget_was_lost():
    rolling = {"steps": [{"nodes": 1, "waitSeconds": 60}]}
    assert step("uo", rolling, since=EARLIER) == (0, None)
    assert step("no", rolling) == (0, NOW)


@pytest.mark.parametrize(
    ("resumed", "passes"),
    [
        ("new/1", True),
        ("new/2", True),
        ("new/0", False),
        ("old/1", False),
        ("new/", False),
        ("new/x", False),
        ("new/-1", False),
        ("new/²", False),
        ("new/" + "9" * 5000, False),
        ("", False),
    ],
)
def test_a_person_lets_a_step_pass(resumed, passes):
    rolling = {"steps": [{"nodes": 1, "waitForResume": True}]}
    found = step("no", rolling, annotations={"nodewright.dev/resumed-step": resumed})
    assert found == ((1, None) if passes else (0, NOW))


def test_both_waits_count():
    rolling = {"steps": [{"nodes": 1, "waitForResume": True, "waitSeconds": 100}]}
    resumed = {"nodewright.dev/resumed-step": "new/1"}
    assert step("no", rolling, since=EARLIER, annotations=resumed) == (0, EARLIER)
    assert step("no", rolling, since="2026-03-01T11:00:00Z") == (0, "2026-03-01T11:00:00Z")
    assert step("no", rolling, since="2026-03-01T11:00:00Z", annotations=resumed) == (1, None)


def test_while_frozen_a_step_gets_ready_and_no_further():
    rolling = {"steps": [{"nodes": 1}]}
    assert step("oo", rolling, frozen=True) == (0, None)
    assert step("no", rolling, frozen=True) == (0, NOW)


def test_steps_that_the_spec_lost_are_done():
    assert step("oo", {"steps": [{"nodes": 1}]}, done=3) == (3, None)
    assert open_nodes("oo", {"steps": [{"nodes": 1}]}, 3) == ["n0", "n1"]


def test_labels_of_nodes_that_matter():
    ds = daemonset(updateStrategy={"rollingUpdate": {"nodeSelector": CANARY, "steps": [{"nodes": 1}]}})
    assert selected(ds, node("n", {"canary": "yes"})) != selected(ds, node("n"))
    assert selected(ds, node("n", {"other": "x"})) == selected(ds, node("n")) == selected(ds, None)


# -- a rollout as a whole ------------------------------------------------------------------------------------------


def amounts():
    return st.one_of(st.integers(0, 4), st.sampled_from(["0%", "10%", "50%", "100%"]))


def some_steps():
    by_number = st.fixed_dictionaries(
        {"nodes": amounts()}, optional={"minAvailable": amounts(), "waitSeconds": st.integers(0, 20)}
    )
    by_label = st.fixed_dictionaries({"nodeSelector": st.sampled_from([CANARY, {"matchLabels": {"zone": "a"}}])})
    return st.lists(st.one_of(by_number, by_label), max_size=4)


class Model:
    """Nodes on which pods get available as they are made, and a controller without memory of its own."""

    def __init__(self, nodes, rolling):
        self.nodes, self.rolling = nodes, rolling
        self.pods = {name: pod(f"old-{name}", name, hash="old") for name in nodes}
        self.status = dict(STABLE)
        self.now = parse_rfc3339(NOW)
        self.steps = [0]

    def look(self):
        """Decide, twice: a restart in between must not matter."""
        seen = view(
            self.pods.values(),
            dict.fromkeys(self.nodes, RUN),
            nodes=self.nodes,
            rolling=self.rolling,
            status=self.status,
            now=format_rfc3339(self.now),
        )
        decision, again = decide(seen, lambda _node: 0.0), decide(seen, lambda _node: 0.0)
        assert (decision.targets, decision.plan, decision.rollout) == (again.targets, again.plan, again.rollout)
        return decision

    def go_on(self):
        decision = self.look()
        for found in decision.plan.delete:
            assert found.metadata.labels[HASH_LABEL] == "old", "no pod of the new template is ever taken away"
            assert found.target_node not in decision.targets.held
            del self.pods[found.target_node]
        for name in decision.plan.create:
            hash_value = decision.targets.hash_for(name)
            self.pods[name] = pod(f"{hash_value}-{name}", name, hash=hash_value)
        rollout = decision.rollout
        self.steps.append(rollout.step)
        self.status["rollout"] = {
            "revision": rollout.revision,
            "step": rollout.step,
            "stepReadyTime": rollout.step_ready_time,
        }
        self.now += timedelta(seconds=7)

    @property
    def updated(self):
        return {name for name, found in self.pods.items() if found.metadata.labels[HASH_LABEL] == "new"}


@given(
    nodes=st.dictionaries(
        st.sampled_from([f"n{i}" for i in range(7)]),
        st.sampled_from([{}, {"canary": "yes"}, {"zone": "a"}, {"zone": "a", "canary": "yes"}]),
        min_size=1,
    ),
    found=some_steps(),
    unavailable=st.integers(1, 3),
    churn=st.lists(st.tuples(st.integers(0, 25), st.sampled_from([f"n{i}" for i in range(9)])), max_size=4),
)
def test_steps_only_go_forward_and_end_with_all_nodes(nodes, found, unavailable, churn):
    world = Model({n: node(n, labels) for n, labels in nodes.items()}, {"maxUnavailable": unavailable, "steps": found})
    for turn in range(60):
        for name in {name for when, name in churn if when == turn}:
            if world.nodes.pop(name, None) is None:
                world.nodes[name] = node(name)
            else:
                world.pods.pop(name, None)
        before = world.updated
        world.go_on()
        assert before <= world.updated
    assert world.steps == sorted(world.steps)
    assert world.steps[-1] == len(found)
    assert world.updated == set(world.nodes)
