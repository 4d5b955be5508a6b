import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.controllers.daemonset.details import PodDetail, Trouble, trouble
from nodewright.controllers.daemonset.eligibility import Verdict
from nodewright.controllers.daemonset.explain import BACK_OFF, explain
from nodewright.controllers.daemonset.kinds import APPS, NODEWRIGHT
from nodewright.controllers.daemonset.model import FieldManager
from nodewright.controllers.daemonset.outside import Found, Read, Refusal, picture
from nodewright.kube.times import parse_rfc3339
from support.daemonset_objects import LEAVE, NOW, RUN, STAY, daemonset, node, pod, revision, view

LONG_AGO, LATER = "2026-03-01T10:00:00Z", "2026-03-01T11:59:55Z"


def old(name, node="n1", **more):
    return pod(name, node, hash="old", **more)


def explained(pods=(), verdicts=None, *, known=True, troubles=None, refusal=None, **spec):
    seen = view(pods, verdicts, **spec)
    return explain(Found(kind=NODEWRIGHT, view=seen, is_known=known, troubles=troubles or {}, refusal=refusal))


def reasons(answer):
    return {line.node: line.reason for line in answer.nodes}


def waits(answer):
    return {wait.kind: wait.nodes for wait in answer.waits}


def actions(answer):
    return [(action.action, action.node, action.pod) for action in answer.next]


# -- nodes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pods", "verdict", "reason"),
    [
        ([], Verdict(False, False, "node selector disk=ssd does not match"), "node selector disk=ssd does not match"),
        ([], RUN, "has no pod yet"),
        ([pod("a")], RUN, "new template, available"),
        ([old("a")], RUN, "old template (revision 1), available"),
        ([pod("a", hash="x")], RUN, "unknown template, available"),
        ([pod("a", ready=False)], RUN, "new template, not ready"),
        ([pod("a", ready=False, scheduled=False, phase="Pending")], RUN, "new template, not scheduled"),
        ([pod("a", phase="Failed", ready=False)], RUN, "new template, failed"),
        ([pod("a", deleting=True)], RUN, "new template, being deleted"),
        ([pod("a")], STAY, "new template, available; may stay, a new one would not come: x"),
        ([pod("a")], LEAVE, "new template, available; must go: x"),
    ],
)
def test_why_a_node_has_or_has_not_a_pod(pods, verdict, reason):
    assert reasons(explained(pods, {"n1": verdict})) == {"n1": reason}


def test_pods_of_nodes_that_are_gone():
    answer = explained([pod("a", "gone", scheduled=False, phase="Pending", ready=False)], {"n1": RUN})
    assert reasons(answer)["gone"] == "the node is gone, its pod is left"
    assert ("delete", "gone", "a") in actions(answer)


def test_the_containers_trouble_is_told_and_its_own_text_is_kept_apart():
    found = Trouble("container c: ImagePullBackOff", 'Back-off pulling image "x"')
    answer = explained([pod("a", ready=False)], troubles={"ns/a": found})
    assert reasons(answer) == {"n1": "new template, container c: ImagePullBackOff"}
    assert answer.nodes[0].pods[0].message == 'Back-off pulling image "x"'
    assert "1 × container c: ImagePullBackOff" in answer.waits[0].message


def test_nodes_with_the_same_reason_say_it_with_the_same_words():
    pods = [pod(f"p{i}", f"n{i}", ready=False) for i in range(3)]
    troubles = {p.key: Trouble("container c: CrashLoopBackOff", f"back-off for {p.key}") for p in pods}
    assert len(set(reasons(explained(pods, troubles=troubles)).values())) == 1


# -- what is waited for ----------------------------------------------------------------------------------------------


def test_nothing_is_waited_for_when_all_is_done():
    answer = explained([pod("a"), pod("b", "n2")])
    assert (answer.complete, answer.waits, answer.next) == (True, [], [])
    assert (answer.desired, answer.updated, answer.available) == (2, 2, 2)


def test_a_used_up_budget_names_who_uses_it():
    pods = [pod("a", "n1", ready=False), old("b", "n2"), old("c", "n3")]
    answer = explained(pods)
    assert waits(answer) == {"ready": ["n1"], "budget": ["n1"]}
    assert answer.waits[1].message == "old pods wait their turn on 2 nodes (n2, n3): maxUnavailable 1 is used up by n1"
    assert answer.next == []


def test_a_share_is_told_as_a_count_too():
    pods = [pod("a", "n1", ready=False), old("b", "n2"), old("c", "n3")]
    answer = explained(pods, rolling={"maxUnavailable": "30%"})
    assert "maxUnavailable 30% (1 node) is used up by n1" in answer.waits[1].message


def test_a_used_up_surge():
    pods = [old("a", "n1"), pod("a2", "n1", ready=False), old("b", "n2")]
    answer = explained(pods, rolling={"maxUnavailable": 0, "maxSurge": 1})
    assert waits(answer)["budget"] == ["n1"]
    assert "maxSurge 1 is used up by n1" in answer.waits[-1].message


def test_old_pods_that_wait_in_turn_are_not_what_they_wait_for():
    pods = [pod("a", "n1", ready=False), old("b", "n2", ready=False), old("c", "n3", ready=False)]
    answer = explained(pods, rolling={"unavailablePods": "WithinBudget"})
    assert waits(answer)["budget"] == ["n1"]


def test_min_ready_seconds_tells_until_when():
    answer = explained([pod("a", "n1", since=LATER), old("b", "n2", since=LONG_AGO)], minReadySeconds=30)
    assert waits(answer) == {"minReadySeconds": ["n1"], "budget": ["n1"]}
    assert answer.waits[0].message.endswith("the next at 2026-03-01T12:00:25Z")
    assert answer.nodes[0].pods[0].message == "available at 2026-03-01T12:00:25Z"


def test_a_pause():
    answer = explained([old("a"), pod("b", "n2")], paused=True)
    assert (answer.paused, answer.complete, waits(answer)) == (True, False, {"paused": ["n1"]})
    assert reasons(answer)["n1"].endswith("; held")


def test_on_delete():
    answer = explained([old("a"), pod("b", "n2")], strategy="OnDelete")
    assert (waits(answer), answer.complete, answer.next) == ({"onDelete": ["n1"]}, False, [])


def test_missing_and_leaving_pods():
    answer = explained([pod("a", "n1", deleting=True)], {"n1": RUN, "n2": RUN})
    assert waits(answer) == {"create": ["n2"], "leaving": ["n1"]}
    assert actions(answer) == [("create", "n2", "")]


STABLE = {"currentRevision": "old"}


def test_a_partition_leaves_nodes_out_for_good():
    pods = [pod("a", "n1"), old("b", "n2"), old("c", "n3")]
    answer = explained(pods, rolling={"partition": 2}, status=STABLE)
    assert (waits(answer), answer.complete, answer.next) == ({"partition": ["n2", "n3"]}, True, [])
    assert reasons(answer)["n2"] == "old template (revision 1), available; held"


def test_a_canary_selector():
    selector = {"matchLabels": {"canary": "yes"}}
    pods = [pod("a", "n1"), old("b", "n2")]
    nodes = {"n1": node("n1", {"canary": "yes"})}
    answer = explained(pods, rolling={"nodeSelector": selector}, nodes=nodes, status=STABLE)
    assert (waits(answer), answer.complete) == ({"nodeSelector": ["n2"]}, True)


def stepping(*steps, pods=None, **rollout):
    status = {**STABLE, "rollout": {"revision": "new", **rollout}}
    pods = pods or [pod("a", "n1"), old("b", "n2"), old("c", "n3")]
    return explained(pods, rolling={"steps": list(steps)}, status=status)


def test_a_step_that_is_not_ready():
    answer = stepping({"nodes": 1}, {"nodes": 1}, pods=[pod("a", "n1", ready=False), old("b", "n2")])
    assert (waits(answer), answer.complete) == ({"ready": ["n1"], "step": ["n2"]}, False)
    text = (
        "step 1 of 2: 0 of its 1 nodes, with those of earlier steps, are available, 1 must be; to follow: 1 node (n2)"
    )
    assert answer.waits[1].message == text


def test_a_step_that_waits_for_time():
    answer = stepping({"nodes": 1, "waitSeconds": 60}, stepReadyTime="2026-03-01T11:59:30Z")
    assert waits(answer) == {"stepWait": ["n2", "n3"]}
    assert "waits until 2026-03-01T12:00:30Z" in answer.waits[0].message


def test_a_step_that_waits_for_a_person():
    answer = stepping({"nodes": 1, "waitForResume": True}, stepReadyTime=NOW)
    assert waits(answer) == {"stepResume": ["n2", "n3"]}
    assert "nodewright rollout resume" in answer.waits[0].message


def test_a_last_step_that_waits_with_all_nodes_done():
    steps = [{"nodes": "100%", "waitForResume": True}]
    answer = stepping(*steps, pods=[pod("a", "n1"), pod("b", "n2")], stepReadyTime=NOW)
    assert (waits(answer), answer.complete) == ({"stepResume": []}, False)
    assert answer.waits[0].message == "step 1 of 1 is ready and waits for `nodewright rollout resume`"


def failing(**rolling):
    status = {**STABLE, "rollout": {"revision": "new", "failedRevision": "new", "failure": "1 of 2 nodes: why"}}
    pods = [pod("a", "n1", ready=False, phase="Failed"), old("b", "n2")]
    return explained(pods, rolling={"maxFailed": 0, **rolling}, status=status)


def test_a_rollout_that_failures_have_stopped():
    answer = failing()
    assert waits(answer)["failed"] == ["n2"]
    assert "budget" not in waits(answer)
    message = next(wait.message for wait in answer.waits if wait.kind == "failed")
    assert "new pods have failed on 1 of 2 nodes: why; more than maxFailed (0)" in message
    assert "nodewright rollout resume" in message


def test_a_rollout_that_goes_back():
    answer = failing(onFailure="Rollback")
    assert "all nodes go back to revision old" in next(w.message for w in answer.waits if w.kind == "rolledBack")


def test_images_are_pulled_first():
    rolling = {"prePull": {"maxParallel": 1}}
    answer = explained([old("a"), old("b", "n2")], rolling=rolling)
    assert waits(answer) == {"prePull": ["n1", "n2"]}
    assert actions(answer) == [("pull", "n1", "")]
    answer = explained([old("a"), old("b", "n2"), old("c", "n3")], rolling=rolling, pulled={"n1", "n3"})
    assert waits(answer) == {"prePull": ["n2"], "budget": ["n1"]}
    assert actions(answer) == [("delete", "n1", "a"), ("pull", "n2", "")]


# -- what comes next, and what is not known --------------------------------------------------------------------------


def test_what_is_next_is_the_decisions_plan():
    answer = explained([old("a"), old("b", "n2")], {"n1": RUN, "n2": RUN, "n3": LEAVE})
    assert actions(answer) == [("delete", "n1", "a")]
    assert answer.next[0].why == "it is not of the template that the rollout wants"
    assert {line.node: line.next for line in answer.nodes} == {"n1": ["delete a"], "n2": [], "n3": []}


def test_a_paused_rollout_makes_missing_pods_of_the_template_that_the_node_had():
    answer = explained([old("a")], {"n1": RUN, "n2": RUN}, paused=True, status=STABLE)
    assert [(a.node, a.why) for a in answer.next] == [("n2", "revision old")]


def test_the_back_off_is_the_controllers_own_memory():
    assert BACK_OFF in explained([pod("a", phase="Failed", ready=False)]).notes
    assert BACK_OFF not in explained([pod("a")]).notes


def test_a_template_that_the_controller_has_not_seen():
    answer = explained([pod("a")], known=False)
    assert answer.complete is False
    assert "the controller has not seen it yet" in answer.notes[0]


def test_what_the_api_server_refused_last_is_told_while_a_pod_is_missing():
    refusal = Refusal("2026-03-01T11:59:00Z", "Error creating: quota")
    assert any("Error creating: quota" in note for note in explained([], {"n1": RUN}, refusal=refusal).notes)
    assert not any("quota" in note for note in explained([pod("a")], refusal=refusal).notes)


def test_upstreams_controller_may_decide_otherwise():
    ds = daemonset()
    ds.metadata.managed_fields = [FieldManager("kube-controller-manager", "status", NOW)]
    seen = view([pod("a")], ds=ds)
    notes = {kind.controller: explain(Found(kind=kind, view=seen, is_known=True)).notes for kind in (APPS, NODEWRIGHT)}
    assert any("kube-controller-manager wrote the status last" in note for note in notes[APPS.controller])
    assert not any("kube-controller-manager" in note for note in notes[NODEWRIGHT.controller])


def test_nothing_is_planned_for_what_is_being_deleted():
    seen = view([], {"n1": RUN}, ds=daemonset(deleting=True))
    answer = explain(Found(kind=NODEWRIGHT, view=seen, is_known=True))
    assert (answer.next, answer.waits) == ([], [])
    assert "is being deleted" in answer.notes[0]


# -- from what is read to a view -------------------------------------------------------------------------------------


def seen(ds, kind=NODEWRIGHT, **read):
    return picture(kind, ds, Read(**{"nodes": [], "pods": [], "revisions": [], **read}), parse_rfc3339(NOW))


def test_the_revision_is_found_by_its_content():
    other = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "other"}]}}
    found, known = seen(daemonset(), revisions=[revision("a", number=1), revision("b", other, number=2)])
    assert (found.update.hash, known, sorted(found.revisions)) == ("a", True, ["a", "b"])


def test_without_a_revision_there_is_a_stand_in():
    found, known = seen(daemonset(), revisions=[revision("a", {"spec": {}}, number=4)])
    assert (found.update.revision, known) == (5, False)
    assert found.update.hash in found.revisions


def test_pods_of_doubles_count_as_the_kept_ones():
    pods = [pod("p", hash="a")]
    found, _ = seen(daemonset(), nodes=[node("n1")], pods=pods, revisions=[revision("a"), revision("b", number=2)])
    assert found.update.hash == "b"
    answer = explain(Found(kind=NODEWRIGHT, view=found, is_known=True))
    assert reasons(answer) == {"n1": "new template, available"}


def test_the_template_generation_counts_for_apps_only():
    ds = daemonset(annotations={"deprecated.daemonset.template.generation": "3"})
    assert [seen(ds, kind)[0].template_generation for kind in (APPS, NODEWRIGHT)] == ["3", None]


def test_a_drained_node_tells_what_goes_before():
    ds = daemonset(nodeDrain="LeaveLast")
    drained = node("n1", taints=("nodewright.dev/drain:NoSchedule",))
    web = pod("web", owner=None, labels={})
    found, _ = seen(ds, nodes=[drained], pods=[pod("a")], others=[ds], draining={"n1": [web]})
    assert "after ns/web" in found.verdicts["n1"].reason


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, None),
        ({"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}]}, None),
        (
            {"containerStatuses": [{"name": "c", "state": {"waiting": {"reason": "ErrImagePull", "message": "m"}}}]},
            Trouble("container c: ErrImagePull", "m"),
        ),
        (
            {
                "containerStatuses": [
                    {
                        "name": "c",
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
                    }
                ]
            },
            Trouble("container c: CrashLoopBackOff", "it ended with OOMKilled (exit code 137)"),
        ),
        (
            {"initContainerStatuses": [{"name": "i", "state": {"terminated": {"reason": "Error", "exitCode": 2}}}]},
            Trouble("container i: Error (exit code 2)", ""),
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk"}, Trouble("Evicted", "disk")),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1"}]},
            Trouble("not scheduled (Unschedulable)", "0/1"),
        ),
        (
            {"conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m"}]},
            Trouble("not ready (ContainersNotReady)", "m"),
        ),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, None),
    ],
)
def test_what_is_wrong_with_a_pod(status, expected):
    assert trouble(msgspec.convert({"status": status}, PodDetail)) == expected


# -- always ----------------------------------------------------------------------------------------------------------

_POD = st.builds(
    dict,
    hash=st.sampled_from(["new", "old"]),
    ready=st.booleans(),
    deleting=st.booleans(),
    since=st.sampled_from([LONG_AGO, LATER]),
)
_ROLLING = st.sampled_from(
    [
        {},
        {"maxUnavailable": 2},
        {"maxUnavailable": "50%"},
        {"maxUnavailable": 0, "maxSurge": 1},
        {"partition": 1},
        {"steps": [{"nodes": 1}, {"nodes": "50%", "waitForResume": True}]},
    ]
)


@given(
    st.lists(st.tuples(st.lists(_POD, max_size=2), st.sampled_from([RUN, RUN, RUN, STAY, LEAVE])), max_size=5),
    _ROLLING,
    st.booleans(),
    st.sampled_from([0, 30]),
)
def test_a_rollout_that_neither_acts_nor_is_done_says_what_it_waits_for(nodes, rolling, paused, seconds):
    verdicts = {f"n{i}": verdict for i, (_, verdict) in enumerate(nodes)}
    pods = [pod(f"p{i}-{k}", f"n{i}", **each) for i, (found, _) in enumerate(nodes) for k, each in enumerate(found)]
    answer = explained(pods, verdicts, rolling=rolling, paused=paused, minReadySeconds=seconds, status=STABLE)
    wanted = {line.node for line in answer.nodes if line.should_run}
    done = {line.node for line in answer.nodes if line.should_run and is_done(line)}
    told = {node for wait in answer.waits for node in wait.nodes} | {action.node for action in answer.next}
    if answer.waits and {wait.kind for wait in answer.waits} & {"budget", "first"}:
        told |= wanted  # they name those that are in the way
    assert wanted - done <= told
    assert answer.next or "first" not in waits(answer)
    if done == wanted:
        assert answer.complete
        assert answer.waits == []


def is_done(line):
    pods = [(each.template, each.state) for each in line.pods]
    others = [template for template, state in pods if state != "being deleted" and template != "new template"]
    return pods[:1] == [("new template", "available")] and not others
