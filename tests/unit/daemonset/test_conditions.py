import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.controllers.daemonset import conditions, status
from nodewright.controllers.daemonset.decide import decide
from nodewright.controllers.daemonset.extensions import RollingUpdate, Step
from nodewright.controllers.daemonset.model import UpdateStrategy
from nodewright.kube.conditions import find_condition
from nodewright.kube.times import parse_rfc3339
from support.daemonset_objects import NOW, RUN, daemonset, pod, view

LATER = "2026-03-01T12:20:00Z"


def old(node):
    return pod(f"old-{node}", node, hash="old")


def new(node, **more):
    return pod(f"new-{node}", node, **more)


def bad(node):
    return new(node, ready=False, since=NOW, created=NOW, waiting="ErrImagePull")


# What is wrong where `bad` is, of two nodes.
WHY = f"1 of 2 nodes: container c of {bad('n1').key} on n1: ErrImagePull"


class Life:
    """A DaemonSet whose status is written as the controller does, look after look."""

    def __init__(self, current="old", **spec):
        self.ds = daemonset(status={"currentRevision": current} if current else None, **spec)

    def look(self, pods, verdicts=None, now=NOW, trouble=None, **spec):
        self.ds = msgspec.structs.replace(self.ds, spec=msgspec.structs.replace(self.ds.spec, **spec))
        seen = view(pods, verdicts, ds=self.ds, now=now)
        decision = decide(seen, lambda _node: 0.0)
        after = status.with_rollout(status.compute(seen, decision.targets), seen, decision)
        after = conditions.with_conditions(after, seen, decision, trouble)
        told = conditions.events(seen, after)
        self.ds = msgspec.structs.replace(self.ds, status=after)
        return [(event.type, event.reason, event.message) for event in told]

    def __getitem__(self, type_):
        found = find_condition(self.ds.status.conditions, type_)
        return found.status, found.reason

    def message(self, type_):
        return find_condition(self.ds.status.conditions, type_).message


def rolling(**fields):
    return {"updateStrategy": {"rollingUpdate": fields}}


@pytest.mark.parametrize(
    ("pods", "fields", "value"),
    [
        ([new("n1"), new("n2")], {}, "True"),
        ([new("n1"), new("n2", ready=False)], {}, "True"),
        ([new("n1", ready=False), new("n2", ready=False)], {"maxUnavailable": 2}, "False"),  # not a single one
        ([new("n1"), new("n2", ready=False)], {"maxUnavailable": 0, "maxSurge": 1}, "False"),
        ([new("n1"), new("n2", ready=False), new("n3", ready=False)], {}, "False"),
        ([new("n1"), new("n2", ready=False), new("n3", ready=False)], {"maxUnavailable": "50%"}, "True"),
        ([], {}, "True"),  # no node wants any
    ],
)
def test_available(pods, fields, value):
    life = Life(**rolling(**fields))
    life.look(pods)
    assert life["Available"] == (value, "MinimumPodsAvailable" if value == "True" else "MinimumPodsUnavailable")


def test_a_rollout_from_its_beginning_to_its_end():
    life = Life()
    assert life.look([old("n1"), old("n2")]) == []
    assert life["Progressing"] == ("True", "RollingOut")
    assert life["Degraded"] == ("False", "AsExpected")
    assert life.look([new("n1"), old("n2")]) == []
    assert life.look([new("n1"), new("n2")]) == [("Normal", "RolloutComplete", 'Revision "new" is rolled out.')]
    assert life["Progressing"] == ("True", "NewRevisionAvailable")
    assert (life.ds.status.current_revision, life.ds.status.update_revision) == ("new", "new")
    assert life.look([new("n1"), new("n2")]) == []


def test_a_second_look_at_the_same_changes_nothing():
    life = Life(**rolling(steps=[{"nodes": 1, "waitSeconds": 60}], maxFailed=2))
    for pods in ([old("n1"), old("n2")], [new("n1"), old("n2")], [bad("n1"), new("n2")], [new("n1"), new("n2")]):
        life.look(pods)
        before = life.ds.status
        assert life.look(pods) == []
        assert life.ds.status == before


LOOKS = {
    "new": lambda n: [new(n)],
    "starting": lambda n: [new(n, ready=False, since=NOW, created=NOW)],
    "bad": lambda n: [bad(n)],
    "failed": lambda n: [new(n, ready=False, phase="Failed")],
    "old": lambda n: [old(n)],
    "lost": lambda n: [pod(f"lost-{n}", n, hash="old", ready=False)],
    "going": lambda n: [pod(f"going-{n}", n, hash="old", deleting=True)],
    "both": lambda n: [old(n), new(n, ready=False, created=NOW)],
    "none": lambda n: [],
}


@given(
    rounds=st.lists(st.lists(st.sampled_from(sorted(LOOKS)), min_size=4, max_size=4), min_size=1, max_size=4),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "maxUnavailable": st.integers(1, 4),
            "partition": st.integers(0, 4),
            "maxFailed": st.integers(0, 2),
            "onFailure": st.sampled_from(["Pause", "Rollback"]),
            "steps": st.lists(
                st.fixed_dictionaries({"nodes": st.integers(0, 3)}, optional={"waitSeconds": st.just(5)}), max_size=3
            ),
        },
    ),
    current=st.sampled_from(["old", "new", ""]),
    paused=st.booleans(),
)
def test_whatever_it_is_a_second_look_changes_nothing(rounds, fields, current, paused):
    life = Life(current, **rolling(**fields))
    verdicts = {f"n{i}": RUN for i in range(4)}
    for states in rounds:
        pods = [found for i, state in enumerate(states) for found in LOOKS[state](f"n{i}")]
        life.look(pods, verdicts, paused=paused)
        before = life.ds.status
        assert life.look(pods, verdicts) == []
        assert life.ds.status == before


def test_messages_do_not_count_pods():
    """Else each pod would be another write of the status."""
    life = Life(**rolling(maxUnavailable="100%"))
    nodes = [f"n{i}" for i in range(5)]
    texts = set()
    for done in range(4):
        life.look([new(n) if i <= done else old(n) for i, n in enumerate(nodes)])
        texts.add(tuple((c.type, c.status, c.reason, c.message) for c in life.ds.status.conditions))
    assert len(texts) == 1


def test_a_new_daemonset():
    life = Life(current="")
    assert life.look([], {"n1": RUN, "n2": RUN}) == []
    assert (life.ds.status.current_revision, life["Progressing"]) == ("new", ("True", "RollingOut"))
    assert life["Available"] == ("False", "MinimumPodsUnavailable")
    assert [reason for _, reason, _ in life.look([new("n1"), new("n2")])] == ["RolloutComplete"]
    assert life.look([new("n1"), new("n2", ready=False)]) == []
    assert life["Progressing"] == ("True", "NewRevisionAvailable")


def test_pausing():
    life = Life()
    life.look([new("n1"), old("n2")])
    life.look([new("n1"), old("n2")], paused=True)
    assert life["Progressing"] == ("Unknown", "DaemonSetPaused")
    life.look([new("n1"), old("n2")], paused=False, now=LATER)
    assert life["Progressing"] == ("True", "RollingOut")
    assert life.ds.status.rollout.last_progress_time == LATER


def test_a_pause_of_what_is_rolled_out_tells_nothing():
    life = Life()
    life.look([new("n1")])
    assert life.look([new("n1")], paused=True) == []
    assert life.look([new("n1")], paused=False) == []
    assert life["Progressing"] == ("True", "NewRevisionAvailable")


def test_a_rollout_that_ends_during_a_pause_is_complete():
    life = Life()
    life.look([new("n1", ready=False)])
    life.look([new("n1", ready=False)], paused=True)
    life.look([new("n1")])
    assert (life["Progressing"], life.ds.status.current_revision) == (("Unknown", "DaemonSetPaused"), "new")


def test_the_deadline():
    life = Life(progressDeadlineSeconds=600)
    life.look([old("n1"), old("n2")])
    assert life["Progressing"] == ("True", "RollingOut")
    life.look([old("n1"), old("n2")], now=LATER)
    assert life["Progressing"] == ("False", "ProgressDeadlineExceeded")
    assert life.message("Progressing") == 'Revision "new" has made no progress for 600 s.'
    life.look([new("n1", created=LATER), old("n2")], now=LATER)
    assert life["Progressing"] == ("True", "RollingOut")


def test_steps():
    life = Life(**rolling(steps=[{"nodes": 1, "waitForResume": True, "waitSeconds": 60}, {"nodes": 1}]))
    pods = [old("n1"), old("n2"), old("n3")]
    assert life.look(pods) == []
    pods[0] = new("n1")
    assert life.look(pods) == [("Normal", "RolloutStepReady", 'Step 1 of 2 of revision "new" is ready.')]
    assert life["Progressing"] == ("True", "WaitingForStep")
    expected = 'Step 1 of 2 of revision "new" is ready and waits for 60 s and `nodewright rollout resume`.'
    assert life.message("Progressing") == expected
    life.ds.metadata.annotations["nodewright.dev/resumed-step"] = "new/1"
    assert life.look(pods, now=LATER) == []  # step 1 was told about
    pods[1] = new("n2")
    assert life.look(pods) == [("Normal", "RolloutStepReady", 'Step 2 of 2 of revision "new" is ready.')]
    pods[2] = new("n3")
    assert [reason for _, reason, _ in life.look(pods)] == ["RolloutComplete"]


def test_steps_that_come_when_all_is_done_are_not_told_about():
    life = Life(current="new")
    life.look([new("n1")])
    steps = UpdateStrategy(rolling_update=RollingUpdate(steps=[Step(nodes=1, wait_for_resume=True)]))
    assert life.look([new("n1")], update_strategy=steps) == []
    assert life.ds.status.rollout.step == 1
    assert life["Progressing"] == ("True", "NewRevisionAvailable")


def test_a_partition():
    life = Life(**rolling(partition=1))
    assert life.look([new("n1"), old("n2")]) == []
    assert life["Progressing"] == ("True", "RolloutHeld")
    assert life.ds.status.current_revision == "old"


def test_failures_that_stop_the_rollout():
    life = Life(**rolling(maxFailed=0))
    text = f'Pods of revision "new" fail on more nodes than maxFailed allows ({WHY}).'
    assert life.look([bad("n1"), old("n2")]) == [("Warning", "RolloutFailed", text)]
    assert (life["Progressing"], life["Degraded"]) == (("False", "RolloutFailed"), ("True", "PodsFailing"))
    assert life.look([old("n1"), old("n2")]) == []
    assert life["Degraded"] == ("True", "PodsFailing")
    life.ds.metadata.annotations["nodewright.dev/resumed-failures"] = "new"
    assert life.look([old("n1"), old("n2")]) == []
    assert (life["Progressing"], life["Degraded"]) == (("True", "RollingOut"), ("False", "AsExpected"))


def test_a_rollback():
    life = Life(**rolling(maxFailed=0, onFailure="Rollback"))
    text = (
        f'Pods of revision "new" fail on more nodes than maxFailed allows ({WHY}):'
        ' the DaemonSet goes back to revision "old".'
    )
    assert life.look([bad("n1"), old("n2")]) == [("Warning", "RolloutRolledBack", text)]
    assert (life["Progressing"], life["Degraded"]) == (("False", "RolloutFailed"), ("True", "RolledBack"))
    assert life.look([old("n1"), old("n2")]) == []
    assert (life["Degraded"], life.ds.status.current_revision) == (("True", "RolledBack"), "old")


def test_failures_that_do_not_stop_it_are_told_as_well():
    life = Life()
    assert life.look([bad("n1"), old("n2")]) == []
    assert life["Degraded"] == ("True", "PodsFailing")
    assert life.message("Degraded") == 'Pods of revision "new" fail on 1 of 2 nodes.'


def test_what_is_wrong_beyond_the_pods_comes_first():
    life = Life()
    life.look([bad("n1")], trouble=("SyncFailed", "quota"))
    assert (life["Degraded"], life.message("Degraded")) == (("True", "SyncFailed"), "quota")


def test_on_delete():
    life = Life(updateStrategy={"type": "OnDelete"})
    life.look([new("n1"), old("n2")])
    assert life["Progressing"] == ("True", "WaitingForDeletion")


def test_put_keeps_the_place_and_the_time():
    before = daemonset().status
    first = conditions.put(before, "A", ("True", "R", "m"), 1, parse_rfc3339(NOW))
    first = conditions.put(first, "B", ("True", "R", "m"), 1, parse_rfc3339(NOW))
    again = conditions.put(first, "A", ("True", "Other", "m"), 2, parse_rfc3339(LATER))
    assert [(c.type, c.reason, c.last_transition_time, c.observed_generation) for c in again.conditions] == [
        ("A", "Other", NOW, 2),
        ("B", "R", NOW, 1),
    ]
    turned = conditions.put(again, "A", ("False", "Other", "m"), 2, parse_rfc3339(LATER))
    assert turned.conditions[0].last_transition_time == LATER
    assert before.conditions == []
    assert first.conditions[0].reason == "R"
